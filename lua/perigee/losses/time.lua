--- Where on the path from data (t = 0) to noise (t = 1) a sample is trained: distributions of t.
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"

---@class perigee.times
local M = {}

--- A distribution of t: draw(self, count, state, dtype, path) -> value [count].
---@class perigee.Time
---@field name string
---@field draw fun(self: perigee.Time, count: integer, state: perigee.Value, dtype: perigee.Dtype,
---  path: string): perigee.Value

--- t uniform on [0, 1].
---@return perigee.Time
function M.uniform()
  return {
    name = "uniform",
    draw = function(_, count, state, dtype)
      return ops.random_uniform({ count }, { state = state, purpose = "time", dtype = dtype })
    end,
  }
end

--- sigma = exp(z), z ~ N(mu, deviation^2); t = sigma/(1 + sigma) on the linear path, (2/pi)·atan(sigma) on the cosine
--- path.
---@param options? { mu?: number, deviation?: number }  0 and 1
---@return perigee.Time
function M.log_normal(options)
  local o = check.options("time.log_normal", options or {}, { mu = { "number", 0 }, deviation = { "number", 1 } })
  return {
    name = "log_normal", mu = o.mu, deviation = o.deviation,
    draw = function(_, count, state, dtype, path)
      local z = ops.random_normal({ count }, { state = state, purpose = "time", dtype = dtype })
      return M.from_normal(z, o.mu, o.deviation, path)
    end,
  }
end

--- The time that belongs to a standard normal draw z.
function M.from_normal(z, mu, deviation, path)
  local log_sigma = z * deviation + mu
  if path == "cosine" then return ops.atan(ops.exp(log_sigma)) * (2 / math.pi) end
  return ops.sigmoid(log_sigma)
end

return M
