--- Choice by element.
local cases = {}
for _, shape in ipairs {
  { { 1 }, { 1 }, { 1 } }, { { 31 }, { 31 }, { 31 } }, { { 3, 1, 257 }, { 5, 1 }, { 3, 5, 257 } },
  { { 33 }, {}, { 4, 33 } }, { { 4, 1 }, { 64 }, { 4, 64 } }, { { 3, 1, 72 }, { 3, 5, 72 }, { 5, 1 } },
  { { 4, 1 }, { 4, 33 }, { 33 } },
} do
  cases[#cases + 1] = {
    name = "where " .. table.concat(shape[3], "x") .. " " .. #shape[1] .. " " .. #shape[2],
    run = function(ops, condition, a, b) return ops.where(condition, a, b) end,
    inputs = { { shape = shape[1], int = { 0, 2 }, dtype = "uint8" }, { shape = shape[2] }, { shape = shape[3] } },
    elementwise = function(condition, a, b) return condition ~= 0 and a or b end,
    gradients = { 2, 3 }, tolerance = { float32 = 0, bfloat16 = 0, float64 = 0 },
    gradient_tolerance = { float32 = 1e-5, bfloat16 = 1e-2 },
  }
end
cases[#cases + 1] = {
  name = "where with numbers", inputs = { { shape = { 33 } } },
  run = function(ops, x) return ops.where(x:greater(0), x, 0), ops.where(x:less(0), 1, x) end,
  reference = function(ops, x)
    return ops.relu(x), ops.maximum(x, 0) + ops.cast(ops.less(x, 0), "float64")
  end,
  gradients = { 1 },
}
cases[#cases + 1] = {
  name = "where of int64", dtypes = { "float32" }, run = function(ops, c, x) return ops.where(c, x, -1) end,
  inputs = {
    { shape = { 4, 1 }, int = { 0, 1 }, dtype = "uint8" }, { shape = { 4, 9 }, int = { -9, 9 }, dtype = "int64" },
  },
  elementwise = function(c, x) return c ~= 0 and x or -1 end,
}
cases[#cases + 1] = {
  name = "where without a fit", run = function(ops, c, x) return ops.where(c, x, 0) end,
  inputs = { { shape = { 3 }, int = { 0, 1 }, dtype = "uint8" }, { shape = { 2 } } }, error = "do not broadcast",
}
return cases
