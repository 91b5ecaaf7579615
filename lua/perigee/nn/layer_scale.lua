--- LayerScale (Touvron et al. 2021, arXiv 2103.17239): a residual branch with one trained factor a channel.
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local LayerScale = module.class "layer scale"

---@class perigee.nn
---@field layer_scale fun(width: integer, first?: number): perigee.Module  x, branch [B,N,width] -> x + gamma·branch

---@param width integer
---@param first? number  the factors' first value
function LayerScale:build(width, first)
  self.gamma = module.parameter({ 1, 1, width }, initialise.constant(first or 1e-5), { public_shape = { width } })
end

--- x + gamma·branch, both [B,N,D]
function LayerScale:forward(x, branch) return ops.gated_residual(x, self.gamma, branch) end

return LayerScale
