--- The times where log(σ/α) is normal, N(mu, deviation²): sigmoid(z) on the linear path (logit-normal, Stable Diffusion
--- 3, arXiv 2403.03206).
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"

---@class perigee.LogNormalOptions
---@field mu? number          0
---@field deviation? number   1

---@class perigee.times
---@field log_normal fun(options?: perigee.LogNormalOptions): perigee.LogNormal

---@class perigee.LogNormal : perigee.Time
---@field of fun(self: perigee.LogNormal, z: perigee.Value, path: perigee.Path): perigee.Value  the times that belong to
---  standard normal draws z

---@param options? perigee.LogNormalOptions
---@return perigee.LogNormal
return function(options)
  local o = check.options("time.log_normal", options or {}, { mu = { "number", 0 }, deviation = { "number", 1 } })
  return {
    name = "log_normal", mu = o.mu, deviation = o.deviation,
    of = function(_, z, path) return path:time_at(z * o.deviation + o.mu) end,
    draw = function(self, count, state, dtype, path)
      return self:of(ops.random_normal({ count }, { state = state, purpose = "time", dtype = dtype }), path)
    end,
  }
end
