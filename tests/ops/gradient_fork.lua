local op = require "perigee.core.op"

local tolerance = { float32 = 2e-6, float64 = 1e-13, bfloat16 = 1e-2 }

local function plain(_, a, b) return op.defined.gradient_fork.plain { a = a, b = b } end

local cases = {
  { name = "gradient_fork gives the cosine",
    run = function(ops, a)
      local _, products = ops.gradient_fork(a, a * -2)
      local ab, aa, bb = unpack(ops.chunk(products, 3, 2))
      return ab / ops.sqrt(aa * bb)
    end,
    inputs = { { shape = { 3, 4, 5 } } },
    reference = function() return { { -1 }, { -1 }, { -1 } } end,
    tolerance = tolerance },
  { name = "gradient_fork, products alone",
    run = function(ops, a, b) return (select(2, ops.gradient_fork(a, b))) end,
    inputs = { { shape = { 3, 5 } }, { shape = { 3, 5 } } },
    reference = function(_, a, b) return (select(2, plain(nil, a, b))) end,
    gradients = { 1, 2 },
    tolerance = tolerance },
  { name = "gradient_fork of two shapes",
    run = function(ops, a, b) return ops.gradient_fork(a, b) end,
    inputs = { { shape = { 2, 3 } }, { shape = { 2, 4 } } },
    error = "gradient_fork: a is [2,3], b is [2,4]" },
}
for _, shape in ipairs {
  { 1 }, { 3, 31 }, { 3, 5, 32 }, { 2, 9, 33 }, { 33, 1, 2 }, { 2, 257, 72 }, { 3, 32, 129 }, { 3, 5, 257 },
  { 3, 5, 1700 },
} do
  cases[#cases + 1] = {
    name = "gradient_fork " .. table.concat(shape, "x"),
    run = function(ops, a, b) return ops.gradient_fork(a, b) end,
    inputs = { { shape = shape }, { shape = shape } },
    reference = plain,
    gradients = op.numel(shape) < 1000 and { 1, 2 } or nil,
    tolerance = tolerance,
  }
end
return cases
