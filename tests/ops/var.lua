--- Variance and standard deviation against two passes over numbers.
local function var_of(list, correction)
  local sum, squares = 0, 0
  for _, v in ipairs(list) do sum = sum + v end
  for _, v in ipairs(list) do squares = squares + (v - sum / #list) ^ 2 end
  return squares / (#list - correction)
end

local nan = 0 / 0
return {
  { name = "var and std of 3x33", inputs = { { shape = { 3, 33 } } }, gradients = { 1 },
    tolerance = { float32 = 1e-5, bfloat16 = 1e-2, float64 = 1e-12 },
    run = function(_, x) return x:var(2), x:std(2, true), x:var(2, { correction = 0 }), x:std() end,
    reference = function(ops, x)
      local first, second, third = {}, {}, {}
      for r, row in ipairs(x:totable()) do
        first[r], second[r], third[r] = var_of(row, 1), { math.sqrt(var_of(row, 1)) }, var_of(row, 0)
      end
      return first, second, third, math.sqrt(var_of(ops.reshape(x, { 99 }):totable(), 1))
    end },
  { name = "var far from zero", inputs = { { shape = { 1000 }, range = { 999, 1001 } } },
    dtypes = { "float32", "float64" },
    tolerance = { float32 = 1e-4, float64 = 1e-12 },
    run = function(_, x) return x:var() end, reference = function(_, x) return var_of(x:totable(), 1) end },
  { name = "var of one number", inputs = { { values = { 3 } } },
    run = function(_, x) return x:var(), x:var(1, { correction = 0 }) end,
    reference = function() return nan, 0 end },
  { name = "std of equals: its gradient is 0",
    check = function()
      local core = require "perigee.core"
      local gradients = core.grad(function(v) return v:std() end, { core.tensor.tensor { 2, 2, 2 } })
      assert.same({ 0, 0, 0 }, gradients[1]:totable())
    end },
}
