--- Another distribution's times moved to more noise, t ← f·t/(1 + (f − 1)·t): for larger pictures f = √(tokens/256) or
--- so (Stable Diffusion 3, arXiv 2403.03206, equation 23).
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.times
---@field shift fun(options: { time?: perigee.Time, factor: number }): perigee.Time  time: pg.time.uniform()

---@param options { time?: perigee.Time, factor: number }
---@return perigee.Time
return function(options)
  local o = check.options("time.shift", options, { time = { "table", require "perigee.times.uniform"() },
    factor = { "number", above = 0 } })
  if type(o.time.draw) ~= "function" then
    core.fail "time.shift: time is a table; expected a distribution, such as pg.time.uniform()"
  end
  local time = { name = "shift", factor = o.factor, of = o.time.name,
    draw = function(_, count, state, dtype, path)
      local t = o.time:draw(count, state, dtype, path)
      return t * o.factor / (t * (o.factor - 1) + 1)
    end }
  for key, value in pairs(o.time) do
    if type(value) == "number" then time["of_" .. key] = value end
  end
  return time
end
