--- From one value to another by the same factor at every step: `from` up to step `begin`, `to` from step `finish` on;
--- both are above 0.
local core = require "perigee.core.ffi"
local schedules = require "perigee.schedules"

---@class perigee.schedules
---@field exponential fun(options: perigee.RampOptions): perigee.Schedule

---@param options perigee.RampOptions
---@return perigee.Schedule
return function(options)
  local fields = schedules.ramp("exponential", options, function(from, to, u) return from * (to / from) ^ u end)
  if fields.ends[1] <= 0 then
    core.fail("schedule.exponential: from = %g, to = %g; expected both above 0", fields.options.from, fields.options.to)
  end
  return fields
end
