--- First values of parameters: functions (shape, draw) -> tensor. `draw.normal(shape)` and `draw.uniform(shape)` give
--- float32 tensors of N(0,1) and [0,1) numbers that depend on the model's seed and the parameter's name.
local ops = require "perigee.core.ops"

local M = {}

local function constant(value)
  return function(shape) return ops.fill(shape, { value = value, dtype = "float32" }) end
end

M.constant = constant
M.zeros = constant(0)
M.ones = constant(1)

--- N(0, deviation²).
function M.normal(deviation)
  return function(shape, draw) return ops.mul(draw.normal(shape), deviation) end
end

--- Uniform on [−bound, bound).
function M.uniform(bound)
  return function(shape, draw) return ops.mul(ops.sub(draw.uniform(shape), 0.5), 2 * bound) end
end

--- Uniform with the bound √(6 / (inputs + outputs)) for a weight [outputs, inputs] (Glorot and Bengio 2010).
function M.xavier_uniform(shape, draw)
  local outputs, inputs = shape[1], shape[2]
  return M.uniform(math.sqrt(6 / (inputs + outputs)))(shape, draw)
end

return M
