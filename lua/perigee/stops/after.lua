--- Ends the stage when `n` steps of the stage are done, whenever it began. after(n, stop): from then on it is the other
--- stop that decides; nothing before counts for it.
local core = require "perigee.core.ffi"
local stops = require "perigee.stops"

---@class perigee.stops
---@field after fun(n: integer, stop?: perigee.Stop): perigee.Stop

--- Another stop, asked once more than `n` steps of the stage are done.
local function delayed(n, stop)
  return {
    arguments = { n, stop }, needs = stop.needs, text = ("after(%d, %s)"):format(n, stop.text),
    first = function() return stop:initial() end,
    latest = function(_, begun)
      local latest = stop:latest(begun and begun + n)
      return latest and begun and math.max(latest, begun + n + 1) or nil
    end,
    decide = function(_, event, state)
      if event.stage_steps <= n then return false, state end
      return stop:decide(event, state)
    end,
  }
end

---@param n integer
---@param stop? perigee.Stop
---@return perigee.Stop
return function(n, stop)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 1 then
    core.fail("stop.after: expected a number of steps, 1 or more, got %s", tostring(n))
  end
  if stop ~= nil and not stops.is_stop(stop) then
    core.fail("stop.after: the second argument is a %s, not a stop", type(stop))
  end
  if stop then return delayed(n, stop) end
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
