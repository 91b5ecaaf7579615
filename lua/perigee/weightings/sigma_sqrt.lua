--- σ⁻² (Stable Diffusion 3, arXiv 2403.03206, as diffusers has it), σ at least 1e-3.
local ops = require "perigee.core.ops"

---@class perigee.weightings
---@field sigma_sqrt fun(): perigee.Weighting

return function()
  return {
    name = "sigma_sqrt",
    of = function(_, level)
      local sigma = ops.maximum(level.sigma, 1e-3)
      return 1 / (sigma * sigma)
    end,
  }
end
