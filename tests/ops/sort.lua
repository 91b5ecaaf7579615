--- Sorting against table.sort over numbers and places.
local nan, huge = 0 / 0, math.huge
local cases = {}
local function case(t) cases[#cases + 1] = t end

--- Rows of a table [R,N] sorted: values and places from 0.
local function sorted(rows, descending)
  local values, places = {}, {}
  for r, row in ipairs(rows) do
    local order = {}
    for k = 1, #row do order[k] = k end
    local function before(a, b)
      local x, y = row[a], row[b]
      local x_nan, y_nan = x ~= x, y ~= y
      if x_nan ~= y_nan then return y_nan ~= descending end
      if x_nan or x == y then return a < b end
      if descending then return x > y end
      return x < y
    end
    table.sort(order, before)
    values[r], places[r] = {}, {}
    for k, place in ipairs(order) do values[r][k], places[r][k] = row[place], place - 1 end
  end
  return values, places
end

for _, n in ipairs { 1, 2, 15, 16, 17, 31, 33, 257, 1024, 1025, 2500 } do
  for _, descending in ipairs { false, true } do
    local rows = n > 300 and 2 or 3
    case {
      name = ("sort of %dx%d%s"):format(rows, n, descending and ", falling" or ""),
      inputs = { { shape = { rows, n } } },
      run = function(ops, x) return ops.sort(x, 2, { descending = descending }) end,
      reference = function(_, x) return sorted(x:totable(), descending) end,
      tolerance = 0, gradient_tolerance = 0, gradients = n > 1 and n < 40 and { 1 } or nil, step = 1e-7,
    }
  end
end
for _, dtype in ipairs { "int32", "int64", "uint8" } do
  for _, descending in ipairs { false, true } do
    case {
      name = ("sort of %s with equals%s"):format(dtype, descending and ", falling" or ""), dtypes = { "float32" },
      inputs = { { shape = { 5, 70 }, int = { dtype == "uint8" and 0 or -20, 20 }, dtype = dtype } },
      run = function(ops, x) return ops.sort(x, -1, { descending = descending }) end,
      reference = function(_, x) return sorted(x:totable(), descending) end,
    }
  end
end
case {
  name = "sort of NaN, infinities and zeros", tolerance = 0,
  inputs = { { values = { { 1, nan, -huge, 0, -0.0, huge, nan, -1, 1e-30, -1e-30 } } } },
  run = function(ops, x) return ops.argsort(x), ops.argsort(x, 2, { descending = true }) end,
  reference = function() return { { 2, 7, 9, 3, 4, 8, 0, 5, 1, 6 } }, { { 1, 6, 5, 0, 8, 3, 4, 9, 7, 2 } } end,
}
case {
  name = "sort along the first dimension", inputs = { { shape = { 33, 3, 2 } } }, tolerance = 0, gradients = { 1 },
  gradient_tolerance = 0, step = 1e-7,
  run = function(ops, x) return (ops.sort(x, 1)) end,
  reference = function(ops, x)
    local rows = sorted(ops.reshape(ops.permute(x, { 2, 3, 1 }), { 6, 33 }):contiguous():totable(), false)
    local columns = {}
    for k = 1, 33 do
      columns[k] = {}
      for j = 1, 3 do columns[k][j] = { rows[2 * j - 1][k], rows[2 * j][k] } end
    end
    return columns
  end,
}
case {
  name = "largest and smallest few", inputs = { { shape = { 4, 33 } } }, tolerance = 0, gradients = { 1 },
  gradient_tolerance = 0, step = 1e-7,
  run = function(ops, x)
    local most, at = ops.topk(x, 3)
    return most, at, (ops.topk(x, 2, 1, { smallest = true }))
  end,
  reference = function(ops, x)
    local values, places = sorted(x:totable(), true)
    for r = 1, 4 do values[r], places[r] = { unpack(values[r], 1, 3) }, { unpack(places[r], 1, 3) } end
    local columns, least = sorted(x:t():contiguous():totable(), false), { {}, {} }
    for j = 1, 33 do least[1][j], least[2][j] = columns[j][1], columns[j][2] end
    return values, places, least
  end,
}
case {
  name = "median of NaN, of one, of few", inputs = { { values = { { 4, 1, 3, 2 }, { 5, nan, 1, 0 } } } }, tolerance = 0,
  run = function(ops, x) return ops.median(x, 2), ops.median(x), ops.median(x[1], 1), ops.median(x, 1, true) end,
  reference = function() return { 2, nan }, nan, 2, { { 4, nan, 1, 0 } } end,
}
case { name = "more than there are", run = function(ops, x) return ops.topk(x, 4) end,
  inputs = { { shape = { 2, 3 } } }, error = "topk: 4 of dimension 2 of [2,3], which has 3" }
case { name = "sort of a number", run = function(ops, x) return ops.sort(x) end, inputs = { { shape = {} } },
  error = "sort: dimension -1 of a tensor []" }
return cases
