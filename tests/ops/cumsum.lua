--- Running sums against loops over numbers.
local cases = {}
local function case(t) cases[#cases + 1] = t end

local function running(rows, reverse)
  local result = {}
  for r, row in ipairs(rows) do
    local sum, n = 0, #row
    result[r] = {}
    for k = 1, n do
      local at = reverse and n + 1 - k or k
      sum = sum + row[at]
      result[r][at] = sum
    end
  end
  return result
end

for _, n in ipairs { 1, 31, 32, 33, 257, 1000 } do
  for _, reverse in ipairs { false, true } do
    case {
      name = ("cumsum of 3x%d%s"):format(n, reverse and " from the end" or ""), inputs = { { shape = { 3, n } } },
      run = function(ops, x) return ops.cumsum(x, 2, { reverse = reverse }) end,
      reference = function(_, x) return running(x:totable(), reverse) end,
      tolerance = { float32 = 1e-6, bfloat16 = 8e-3, float64 = 1e-13 }, gradients = n < 300 and { 1 } or nil,
      gradient_tolerance = { float32 = 1e-6, bfloat16 = 8e-3 },
    }
  end
end
for _, dtype in ipairs { "int32", "int64", "uint8" } do
  case {
    name = "cumsum of " .. dtype, dtypes = { "float32" },
    inputs = { { shape = { 2, 300 }, int = { dtype == "uint8" and 0 or -99, 99 }, dtype = dtype } },
    run = function(ops, x) return ops.cumsum(x, -1) end,
    reference = function(_, x) return running(x:totable(), false) end,
  }
end
case {
  name = "cumsum along the first dimension", inputs = { { shape = { 5, 3, 2 } } }, gradients = { 1 },
  run = function(ops, x) return ops.cumsum(x, 1) end,
  reference = function(ops, x)
    local parts = {}
    for k = 1, 5 do parts[k] = ops.sum(x:narrow(1, 1, k), 1) end
    return ops.stack(parts, 1)
  end,
}
case { name = "cumsum of which dimension", run = function(ops, x) return ops.cumsum(x) end,
  inputs = { { shape = { 2 } } }, error = "cumsum: the dimension is missing; expected a number" }
return cases
