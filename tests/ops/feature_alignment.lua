local op = require "perigee.core.op"

local tolerance = { float32 = 2e-6, float64 = 1e-13, bfloat16 = 1e-2 }

local function plain(_, p, z) return op.defined.feature_alignment.plain { p = p, z = z } end

local cases = {
  { name = "feature_alignment of a teacher's patch tokens, without the class token",
    run = function(ops, p, z)
      z = z + ops.sum(p) * 0 -- part of the traced program, where views may be strided
      return ops.feature_alignment(p, ops.stop_gradient(ops.narrow(z, 2, 2, 4)))
    end,
    inputs = { { shape = { 2, 4, 9 } }, { shape = { 2, 5, 9 } } },
    reference = function(ops, p, z) return plain(ops, p, ops.narrow(z, 2, 2, 4)) end,
    gradients = { 1 },
    tolerance = tolerance },
  { name = "feature_alignment of transposed features",
    run = function(ops, p, z) return ops.feature_alignment(ops.transpose(p, 2, 3), ops.stop_gradient(z)) end,
    inputs = { { shape = { 2, 9, 4 } }, { shape = { 2, 4, 9 } } },
    reference = function(ops, p, z) return plain(ops, ops.transpose(p, 2, 3), z) end,
    gradients = { 1 },
    tolerance = tolerance },
  { name = "feature_alignment with a row of zeros",
    run = function(ops, p, z) return ops.feature_alignment(ops.concat({ p, z * 0 }, 2), ops.concat({ z, p }, 2)) end,
    inputs = { { shape = { 2, 3, 5 } }, { shape = { 2, 3, 5 } } },
    reference = function(ops, p, z) return plain(ops, p, z) * 0.5 end,
    tolerance = tolerance },
}
for _, shape in ipairs {
  { 1, 1, 2 }, { 3, 31, 33 }, { 2, 257, 72 }, { 1, 70, 768 }, { 2, 33, 257 }, { 2, 9, 31 }, { 2, 9, 32 }, { 2, 9, 72 },
  { 2, 9, 257 }, { 2, 6, 384 },
} do
  cases[#cases + 1] = {
    name = "feature_alignment " .. table.concat(shape, "x"),
    run = function(ops, p, z) return ops.feature_alignment(p, ops.stop_gradient(z)) end,
    inputs = { { shape = shape }, { shape = shape } },
    reference = plain,
    gradients = shape[1] * shape[2] * shape[3] < 5000 and { 1 } or nil,
    tolerance = tolerance,
  }
end
return cases
