local function run(ops, total, x, options)
  local copy = ops.copy(total)
  ops.accumulate(copy, x, options)
  return copy
end

local cases = {}
for _, n in ipairs { 1, 31, 72, 257 } do
  cases[#cases + 1] = {
    name = ("accumulate %d"):format(n), compiled = false,
    run = function(ops, total, x) return run(ops, total, x, { scale = 0.25 }) end,
    inputs = { { shape = { n } }, { shape = { n } } },
    reference = function(_, total, x) return total + x * 0.25 end,
    tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
  }
  cases[#cases + 1] = {
    name = ("accumulate first %d"):format(n), compiled = false,
    run = function(ops, total, x) return run(ops, total, x, { scale = 0.5, first = true }) end,
    inputs = { { shape = { n } }, { shape = { n } } },
    reference = function(_, _, x) return x * 0.5 end,
    tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
  }
end

-- a piece's bfloat16 gradients are summed in float32
cases[#cases + 1] = {
  name = "accumulate bfloat16 into float32", compiled = false, dtypes = { "bfloat16" },
  run = function(ops, total, x) return run(ops, total, x, { scale = 0.25 }) end,
  inputs = { { shape = { 33 }, dtype = "float32" }, { shape = { 33 } } },
  reference = function(_, total, x) return total + x * 0.25 end,
  tolerance = { bfloat16 = 1e-6 },
}
cases[#cases + 1] = {
  name = "accumulate of two sizes", run = function(ops, total, x) return run(ops, total, x) end,
  inputs = { { shape = { 3 } }, { shape = { 4 } } }, error = "accumulate: total is float32 [3], x is float32 [4]",
}
return cases
