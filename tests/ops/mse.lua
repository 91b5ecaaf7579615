local op = require "perigee.core.op"

local tolerance = { float32 = 2e-6, float64 = 1e-13, bfloat16 = 1e-2 }
local cases = {}
for _, shape in ipairs {
  { 1 }, { 33 }, { 3, 31 }, { 2, 4, 9, 9 }, { 2, 257, 33 }, { 1, 3, 4097 }, { 3, 2, 32 }, { 3, 2, 72 }, { 3, 2, 257 },
  { 3, 2051 }, { 3, 2056 },
} do
  local size = table.concat(shape, "x")
  local gradients = op.numel(shape) < 10000 and { 1, 2 } or nil
  cases[#cases + 1] = {
    name = "mse " .. size,
    run = function(ops, a, b) return ops.mse(a, b) end,
    inputs = { { shape = shape }, { shape = shape } },
    reference = function(_, a, b) return (op.defined.mse.plain { a = a, b = b }) end,
    gradients = gradients,
    tolerance = tolerance,
  }
  cases[#cases + 1] = {
    name = "mse_per_sample " .. size,
    run = function(ops, a, b) return ops.mse_per_sample(a, b) end,
    inputs = { { shape = shape }, { shape = shape } },
    reference = function(_, a, b) return (select(2, op.defined.mse.plain { a = a, b = b })) end,
    gradients = gradients,
    tolerance = tolerance,
  }
end
cases[#cases + 1] = {
  name = "mse of one network's two ends",
  run = function(ops, a) return ops.mse(a * 2, a * a) end,
  inputs = { { shape = { 3, 5 } } },
  reference = function(ops, a)
    local d = a * 2 - a * a
    return ops.mean(d * d)
  end,
  gradients = { 1 },
  tolerance = { float32 = 1e-5, float64 = 1e-13, bfloat16 = 5e-2 },
}
return cases
