--- A decay for moving averages that are of use from the first steps on: (1 + k)/(10 + k) at step k, up to `decay`. So
--- they are over about a tenth of the steps so far, until that is 1/(1 − decay) steps.
local check = require "perigee.core.check"

---@class perigee.AveragesOptions
---@field decay? number  0.9999

---@class perigee.schedules
---@field averages fun(options?: perigee.AveragesOptions): perigee.Schedule

---@param options? perigee.AveragesOptions
---@return perigee.Schedule
return function(options)
  local o = check.options("schedule.averages", options or {}, { decay = { "number", 0.9999, least = 0, below = 1 } })
  local function at(_, step) return math.min(o.decay, (1 + step) / (10 + step)) end
  return { options = o, ends = { at(nil, 1), o.decay }, at = at,
    text = ("averages %g, (1 + k)/(10 + k) at step k until then"):format(o.decay) }
end
