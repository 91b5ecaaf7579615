--- x_t = (1 − t)·x0 + t·ε (SiT, arXiv 2401.08740; rectified flow).
local ops = require "perigee.core.ops"

---@class perigee.paths
---@field linear fun(): perigee.Path

return function()
  return {
    name = "linear",
    at = function(_, t) return 1 - t, t, -1, 1 end,
    coefficients = function(_, t) return 1 - t, t, -1, 1 end,
    noised = function(_, x0, noise, t) return ops.interpolant(x0, noise, t, { path = "linear" }) end,
    time_at = function(_, z) return ops.sigmoid(z) end,
  }
end
