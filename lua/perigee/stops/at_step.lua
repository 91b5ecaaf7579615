--- Ends the stage when `n` steps of the run are done: of the whole run, not of the stage (that is stop.after). A stage
--- has one step at least.
local core = require "perigee.core.ffi"

---@class perigee.stops
---@field at_step fun(n: integer): perigee.Stop

---@param n integer
---@return perigee.Stop
return function(n)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 0 then core.fail("stop.at_step: %s is not a step number", tostring(n)) end
  return {
    text = ("at_step(%d)"):format(n),
    latest = function(_, begun) return math.max(n, (begun or 0) + 1) end,
    remark = function(_, step)
      return step >= n and ("at_step(%d) is past, %d steps are done"):format(n, step) or nil
    end,
    decide = function(_, event, state)
      if event.step >= n then return true, state, ("step %d reached"):format(n) end
      return false, state
    end,
  }
end
