--- LayerNorm over the last dimension, with weight and bias.
local check = require "perigee.core.check"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local LayerNorm = module.class "layernorm"

---@class perigee.nn
---@field layernorm fun(width: integer, options?: table): perigee.Module  x [..,width] -> [..,width]

local rules = { epsilon = { "number", 1e-6 }, affine = { "boolean", true } }

---@param width integer
---@param options? { epsilon?: number, affine?: boolean }
function LayerNorm:build(width, options)
  options = check.options("layernorm", options or {}, rules)
  self.epsilon = options.epsilon
  if options.affine then
    self.weight = module.parameter({ width }, initialise.ones)
    self.bias = module.parameter({ width }, initialise.zeros)
  end
end

--- x [..,width] -> [..,width]
function LayerNorm:forward(x)
  return ops.layernorm(x, { weight = self.weight, bias = self.bias, epsilon = self.epsilon })
end

return LayerNorm
