--- Ends the stage when `n` steps of the run are done.
local core = require "perigee.core.ffi"

---@class perigee.stops
---@field at_step fun(n: integer): perigee.Stop

---@param n integer
---@return perigee.Stop
return function(n)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 0 then core.fail("stop.at_step: %s is no step number", tostring(n)) end
  return {
    text = ("at_step(%d)"):format(n), latest = function() return n end,
    decide = function(_, event, state)
      if event.step >= n then return true, state, ("step %d reached"):format(n) end
      return false, state
    end,
  }
end
