--- softmax and log_softmax against their plain compositions.
local cases = {}
local function case(t) cases[#cases + 1] = t end

for _, name in ipairs { "softmax", "log_softmax" } do
  for _, shape in ipairs { { 1 }, { 31 }, { 3, 32 }, { 5, 257 }, { 2, 3, 33 }, { 9, 72 }, { 2, 2051 }, { 2, 2056 } } do
    -- The rounding of a sum grows as the square root of its length, where it is taken in one sequence.
    local longer = math.max(1, math.sqrt(shape[#shape] / 400))
    case {
      name = ("%s of %s"):format(name, table.concat(shape, "x")), run = function(ops, x) return ops[name](x) end,
      inputs = { { shape = shape, range = { -8, 8 } } }, op = name, gradients = { 1 },
      tolerance = { float32 = longer * 2e-6, bfloat16 = 6e-3, float64 = 1e-12 },
      gradient_tolerance = { float32 = longer * 1e-5, bfloat16 = 5e-2 },
    }
  end
  for dim = 1, 2 do
    case {
      name = ("%s along %d"):format(name, dim), run = function(_, x) return x[name](x, dim) end,
      inputs = { { shape = { 4, 5, 6 } } }, gradients = { 1 }, tolerance = { float32 = 2e-6, bfloat16 = 6e-3 },
      gradient_tolerance = { float32 = 1e-5, bfloat16 = 5e-2 },
      reference = function(ops, x)
        local e = ops.exp(x)
        local y = e / ops.sum(e, dim, { keep = true })
        return name == "softmax" and y or ops.log(y)
      end,
    }
  end
end
local huge, nan = math.huge, 0 / 0
case {
  name = "softmax of large numbers", run = function(_, x) return x:softmax(), x:log_softmax() end,
  inputs = { { values = {
    { 1e4, 1e4, -1e4 }, { -huge, 0, 0 }, { 0, -1e4, -huge }, { -huge, -huge, -huge }, { 0, nan, 1 },
  } } },
  reference = function()
    local l = math.log(0.5)
    return { { 0.5, 0.5, 0 }, { 0, 0.5, 0.5 }, { 1, 0, 0 }, { nan, nan, nan }, { nan, nan, nan } },
      { { l, l, -2e4 + l }, { -huge, l, l }, { 0, -1e4, -huge }, { nan, nan, nan }, { nan, nan, nan } }
  end,
}
case { name = "softmax of a number", run = function(ops, x) return ops.softmax(x) end, inputs = { { shape = {} } },
  error = "softmax: dimension -1 of a tensor []" }
return cases
