--- Sums, means, extremes and argmax against loops over numbers.
local core = require "perigee.core"

local cases = {}
local function case(t) cases[#cases + 1] = t end

--- The oracle: walks a nested table and folds the elements that share a place of the result.
local function fold(x, dims, step, first, last)
  local shape, reduced, kept = x.shape, {}, {}
  for _, d in ipairs(dims) do reduced[d] = true end
  for d, size in ipairs(shape) do
    if not reduced[d] then kept[#kept + 1] = size end
  end
  local function build(t, d, out)
    if d > #shape then
      out.value, out.count = step(out.value or first, t), (out.count or 0) + 1
      return
    end
    for k = 1, shape[d] do
      if reduced[d] then build(t[k], d + 1, out)
      else
        out[k] = out[k] or {}
        build(t[k], d + 1, out[k])
      end
    end
  end
  local tree = {}
  build(x:totable(), 1, tree)
  local function finish(t, d)
    if d > #kept then return last and last(t.value, t.count) or t.value end
    local list = {}
    for k = 1, kept[d] do list[k] = finish(t[k], d + 1) end
    return list
  end
  return finish(tree, 1)
end

local function sum(x, dims) return fold(x, dims, function(a, b) return a + b end, 0) end
local function mean(x, dims)
  return fold(x, dims, function(a, b) return a + b end, 0, function(s, n) return s / n end)
end
local function max(x, dims) return fold(x, dims, math.max, -math.huge) end
local function min(x, dims) return fold(x, dims, math.min, math.huge) end
local oracles = { sum = sum, mean = mean, max = max, min = min }

for _, name in ipairs { "sum", "mean", "max", "min" } do
  for _, layout in ipairs {
    { { 1 }, { 1 } }, { { 33 }, { 1 } }, { { 5, 257 }, { 2 } }, { { 257, 5 }, { 1 } }, { { 130, 33 }, { 1 } },
    { { 3, 65, 9 }, { 2 } }, { { 4, 3, 5, 7 }, { 1, 3 } }, { { 4, 3, 5, 7 }, { 2, 4 } }, { { 7, 3, 31 }, { 1, 3 } },
    { { 2, 3, 4 }, { 1, 2, 3 } }, { { 9, 1, 4 }, { 2 } }, { { 31, 257 }, { 1 } },
    { { 2, 3, 4, 72 }, { 1, 3 } }, { { 2, 3, 4, 33 }, { 2, 4 } }, { { 20001 }, { 1 } },
    { { 2, 20000 }, { 2 } }, { { 3, 700, 72 }, { 2 } }, { { 5000, 3 }, { 1 } }, { { 65, 3, 257 }, { 1, 3 } },
    { { 300, 1 }, { 2 } }, { { 2500, 8 }, { 2 } },
  } do
    local shape, dims = layout[1], layout[2]
    local exact = name == "max" or name == "min"
    case {
      name = ("%s of %s over %s"):format(name, table.concat(shape, "x"), table.concat(dims, ",")),
      run = function(ops, x) return ops[name](x, dims) end, inputs = { { shape = shape } },
      reference = function(_, x) return oracles[name](x, dims) end,
      gradients = #shape > 1 and shape[1] < 10 and shape[2] < 300 and { 1 } or nil,
      tolerance = { float32 = exact and 0 or 2e-6, bfloat16 = exact and 0 or 8e-3, float64 = exact and 0 or 1e-13 },
      gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
    }
  end
  for _, size in ipairs { { 20000 }, { 3, 9000 }, { 700, 33 } } do
    case {
      name = ("%s of all of %s"):format(name, table.concat(size, "x")), run = function(ops, x) return ops[name](x) end,
      inputs = { { shape = size, range = { 0.5, 1.5 } } },
      tolerance = { float32 = 2e-6, bfloat16 = 4e-3, float64 = 1e-13 },
      reference = function(_, x) return oracles[name](x, #size == 1 and { 1 } or { 1, 2 }) end,
    }
  end
  for _, dtype in ipairs { "int32", "int64", "uint8" } do
    for _, dims in ipairs { { 1 }, { 2 }, { 1, 2 }, { 1, 3 } } do
      case {
        name = ("%s of %s over %s"):format(name, dtype, table.concat(dims, ",")), dtypes = { "float32" },
        inputs = { { shape = { 4, 33, 3 }, int = { dtype == "uint8" and 0 or -99, 99 }, dtype = dtype } },
        run = function(ops, x) return ops[name](x, dims) end,
        reference = function(_, x) return oracles[name](x, dims) end,
      }
    end
  end
end

case {
  name = "keep and negative dimensions", inputs = { { shape = { 2, 3, 4 } } }, gradients = { 1 },
  run = function(_, x)
    local keep = { keep = true }
    return x:sum(-1, keep), x:mean({ 1, -2 }, keep), x:max(1, keep)
  end,
  reference = function(ops, x)
    return ops.reshape(ops.sum(x, 3), { 2, 3, 1 }), ops.reshape(ops.mean(x, { 1, 2 }), { 1, 1, 4 }),
      ops.reshape(ops.max(x, 1), { 1, 3, 4 })
  end,
}
case {
  name = "largest of equals shares its gradient",
  check = function()
    local x = core.tensor.tensor { { 1, 3, 3 }, { 2, 2, 2 } }
    local gradients = core.grad(function(v) return v:max(2):sum() end, { x })
    local expected = { { 0, 0.5, 0.5 }, { 1 / 3, 1 / 3, 1 / 3 } }
    for i, row in ipairs(gradients[1]:totable()) do
      for j, g in ipairs(row) do assert.near(expected[i][j], g, 1e-6) end
    end
  end,
}
local nan, huge = 0 / 0, math.huge
case {
  name = "extremes with NaN and infinity",
  inputs = { { values = { { 1, nan, 2 }, { -huge, 1, huge }, { -huge, -huge, -huge } } } },
  run = function(_, x) return x:max(2), x:min(2), x:max(1) end,
  reference = function() return { nan, huge, -huge }, { nan, -huge, -huge }, { 1, nan, huge } end,
}
case {
  name = "reductions of nothing", dtypes = { "float32" }, inputs = { { shape = { 3, 0 } } }, strided = false,
  compiled = false,
  run = function(_, x) return x:sum(2), x:mean(2), x:max(2), x:sum(1) end,
  reference = function() return { 0, 0, 0 }, { nan, nan, nan }, { -huge, -huge, -huge }, {} end,
}
case {
  name = "bfloat16 adds in float32", dtypes = { "bfloat16" },
  run = function(_, x) return x:sum(), x:sum(1) end, inputs = { { shape = { 4096, 3 }, range = { 1, 1 } } },
  reference = function() return 12288, { 4096, 4096, 4096 } end, tolerance = 0,
}

for _, layout in ipairs {
  { { 33 }, 1 }, { { 5, 257 }, 2 }, { { 257, 5 }, 1 }, { { 3, 32, 4 }, 2 }, { { 9, 1 }, 2 }, { { 9, 31 }, 2 },
  { { 9, 72 }, 2 }, { { 9, 384 }, 2 }, { { 9, 72 }, 1 }, { { 9, 384 }, 1 },
} do
  local shape, dim = layout[1], layout[2]
  case {
    name = ("argmax of %s along %d"):format(table.concat(shape, "x"), dim), inputs = { { shape = shape } },
    run = function(_, x) return x:argmax(dim) end,
    reference = function(_, x)
      local place = -1
      return fold(x, { dim }, function(best, v)
        place = best and best.place + 1 or 0
        if best and v <= best.value then return { value = best.value, at = best.at, place = place } end
        return { value = v, at = place, place = place }
      end, nil, function(best) return best.at end)
    end,
  }
end
case {
  name = "argmax of equals and NaN", inputs = { { values = { { 2, 5, 5 }, { 1, nan, 9 } } } },
  run = function(_, x) return x:argmax(2), x:argmax(2, { keep = true }) end,
  reference = function() return { 1, 1 }, { { 1 }, { 1 } } end,
}
case { name = "sum over no dimension", run = function(_, x) return x:sum(3) end, inputs = { { shape = { 2, 3 } } },
  error = "sum: dimension 3 of a tensor [2,3]" }
case { name = "sum over one twice", run = function(_, x) return x:sum { 1, -2 } end, inputs = { { shape = { 2, 3 } } },
  error = "sum: dimension 1 is named twice" }
case { name = "sum with a typing error", run = function(_, x) return x:sum(1, { keeep = true }) end,
  inputs = { { shape = { 2, 3 } } }, error = "sum: unknown option 'keeep'" }
return cases
