--- From one value to another along half a cosine (SGDR without restarts; Loshchilov and Hutter, arXiv 1608.03983,
--- equation 5): `from` up to step `begin`, `to` from step `finish` on.
local schedules = require "perigee.schedules"

---@class perigee.schedules
---@field cosine fun(options: perigee.RampOptions): perigee.Schedule

---@param options perigee.RampOptions
---@return perigee.Schedule
return function(options)
  return schedules.ramp("cosine", options,
    function(from, to, u) return to + (from - to) * (1 + math.cos(math.pi * u)) / 2 end)
end
