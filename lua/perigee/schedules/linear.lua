--- From one value to another in a straight line: `from` up to step `begin`, `to` from step `finish` on.
local schedules = require "perigee.schedules"

---@class perigee.schedules
---@field linear fun(options: perigee.RampOptions): perigee.Schedule

---@param options perigee.RampOptions
---@return perigee.Schedule
return function(options)
  return schedules.ramp("linear", options, function(from, to, u) return from + (to - from) * u end)
end
