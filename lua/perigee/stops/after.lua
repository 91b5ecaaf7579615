--- Ends the stage when `n` steps of the stage are done, whenever it began.
local core = require "perigee.core.ffi"

---@class perigee.stops
---@field after fun(n: integer): perigee.Stop

---@param n integer
---@return perigee.Stop
return function(n)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 1 then
    core.fail("stop.after: expected a number of steps, 1 or more, got %s", tostring(n))
  end
  return {
    text = ("after(%d)"):format(n),
    latest = function(_, begun) return begun and begun + n end,
    remark = function(_, step, begun)
      return step - begun >= n and ("after(%d) is past, the stage has done %d steps"):format(n, step - begun) or nil
    end,
    decide = function(_, event, state)
      if event.stage_steps >= n then return true, state, ("%d steps of the stage done"):format(n) end
      return false, state
    end,
  }
end
