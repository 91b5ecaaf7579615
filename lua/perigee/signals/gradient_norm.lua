--- The norm of the whole gradient of the step just done, before clipping.
local check = require "perigee.core.check"

---@class perigee.GradientNormOptions
---@field from? integer    0
---@field every? integer   1

---@class perigee.signals
---@field gradient_norm fun(options?: perigee.GradientNormOptions): perigee.Signal

---@param options? perigee.GradientNormOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.gradient_norm", options or {}, { from = { "natural", 0 }, every = { "count", 1 } })
  return {
    name = "gradient_norm", settings = o, key = ("gradient_norm %d %d"):format(o.from, o.every), of_step = true,
    measure = function(_, run) return run.gradient_norm end,
  }
end
