--- x_t = cos(πt/2)·x0 + sin(πt/2)·ε (SiT, arXiv 2401.08740: the generalised, variance-preserving path).
local ops = require "perigee.core.ops"

---@class perigee.paths
---@field cosine fun(): perigee.Path

local QUARTER = math.pi / 2

return function()
  return {
    name = "cosine",
    at = function(_, t)
      local alpha, sigma = math.cos(QUARTER * t), math.sin(QUARTER * t)
      return alpha, sigma, -QUARTER * sigma, QUARTER * alpha
    end,
    coefficients = function(_, t)
      local alpha, sigma = ops.cos(t * QUARTER), ops.sin(t * QUARTER)
      return alpha, sigma, sigma * -QUARTER, alpha * QUARTER
    end,
    noised = function(_, x0, noise, t) return ops.interpolant(x0, noise, t, { path = "cosine" }) end,
    time_at = function(_, z) return ops.atan(ops.exp(z)) * (2 / math.pi) end,
  }
end
