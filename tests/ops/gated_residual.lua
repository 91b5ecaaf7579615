local tolerance = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 2e-2 }
local cases = {
  { name = "gated_residual by slices of a modulation",
    run = function(ops, x, y, modulation)
      local m = ops.chunk(modulation, 6)
      return ops.gated_residual(ops.gated_residual(x, m[3], y), m[6], y)
    end,
    inputs = { { shape = { 3, 5, 9 } }, { shape = { 3, 5, 9 } }, { shape = { 3, 1, 54 } } },
    reference = function(ops, x, y, modulation)
      local m = ops.chunk(modulation, 6)
      return x + m[3] * y + m[6] * y
    end,
    gradients = { 1, 2, 3 },
    tolerance = tolerance },
  { name = "gated_residual by one gate for all (LayerScale)",
    run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
    inputs = { { shape = { 3, 33, 5 } }, { shape = { 3, 33, 5 } }, { shape = { 5 } } },
    reference = function(_, x, y, gate) return x + gate * y end,
    gradients = { 1, 2, 3 },
    tolerance = tolerance },
}
cases[#cases + 1] = {
  name = "gated_residual by one gate for many rows",
  run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
  inputs = { { shape = { 3, 72, 64 } }, { shape = { 3, 72, 64 } }, { shape = { 64 } } },
  reference = function(_, x, y, gate) return x + gate * y end,
  gradients = { 1, 2, 3 },
  tolerance = tolerance,
}
for _, shape in ipairs { { 1, 1, 1 }, { 2, 67, 3 }, { 2, 33, 257 }, { 3, 257, 72 }, { 2, 31, 1152 } } do
  cases[#cases + 1] = {
    name = "gated_residual " .. table.concat(shape, "x"),
    run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
    inputs = { { shape = shape }, { shape = shape }, { shape = { shape[1], 1, shape[3] } } },
    reference = function(_, x, y, gate) return x + gate * y end,
    gradients = shape[3] < 100 and { 1, 2, 3 } or nil,
    tolerance = tolerance,
  }
end
return cases
