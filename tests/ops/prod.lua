--- Products against loops over numbers.
local cases = {}
local function case(t) cases[#cases + 1] = t end

local function products(rows)
  local list = {}
  for r, row in ipairs(rows) do
    list[r] = 1
    for _, v in ipairs(row) do list[r] = list[r] * v end
  end
  return list
end

for _, n in ipairs { 1, 31, 33, 70 } do
  case {
    name = "prod of 9x" .. n, inputs = { { shape = { 9, n }, range = { 0.7, 1.4 } } }, gradients = { 1 },
    run = function(_, x) return x:prod(2) end,
    reference = function(_, x) return products(x:totable()) end,
    tolerance = { float32 = 1e-6, bfloat16 = 4e-3, float64 = 1e-13 },
    gradient_tolerance = { float32 = 1e-5, bfloat16 = 2e-2 },
  }
end
case {
  name = "prod over other dimensions", inputs = { { shape = { 3, 4, 2 } } }, gradients = { 1 },
  run = function(_, x) return x:prod(), x:prod(-3), x:prod({ 1, 3 }, true), x:prod(2, { keep = true }) end,
  reference = function(ops, x)
    local function rows(order, ...) return products(ops.permute(x, order):reshape(...):totable()) end
    local two, second = rows({ 2, 1, 3 }, 4, 6), ops.narrow(x, 2, 1, 1)
    for k = 2, 4 do second = second * ops.narrow(x, 2, k, 1) end
    return rows({ 1, 2, 3 }, 1, 24)[1], x[1] * x[2] * x[3],
      { { { two[1] }, { two[2] }, { two[3] }, { two[4] } } }, second
  end,
  gradient_tolerance = { float32 = 1e-5, bfloat16 = 4e-2 },
}
case {
  name = "prod with one zero and with two", gradients = { 1 }, tolerance = 0, gradient_tolerance = 4e-3,
  inputs = { { values = { { 2, 0, 3, -1 }, { 0, 4, 0, 5 }, { 1, 2, 3, 4 } } } },
  run = function(_, x) return x:prod(2) end, reference = function() return { 0, 0, 24 } end,
}
case {
  name = "prod of NaN, of infinities, of nothing", strided = false, compiled = false,
  inputs = { { values = { { 0 / 0, 0 }, { math.huge, -2 } } }, { shape = { 2, 0 } } },
  run = function(_, x, empty) return x:prod(2), empty:prod(2), empty:prod() end,
  reference = function() return { 0 / 0, -math.huge }, { 1, 1 }, 1 end,
}
for _, dtype in ipairs { "int32", "int64", "uint8" } do
  case {
    name = "prod of " .. dtype, dtypes = { "float32" },
    inputs = { { shape = { 5, 9 }, int = { dtype == "uint8" and 0 or -9, 9 }, dtype = dtype } },
    run = function(_, x) return x:prod(2) end, reference = function(_, x) return products(x:totable()) end,
  }
end
case { name = "prod over one twice", run = function(_, x) return x:prod { 1, -2 } end,
  inputs = { { shape = { 2, 3 } } }, error = "prod: dimension 1 is named twice" }
return cases
