local ops = require "perigee.core.ops"
local cases = {}

for _, n in ipairs { 1, 31, 32, 33, 72, 257, 4096, 4099, 12289, 40003 } do
  cases[#cases + 1] = {
    name = "square_sum of " .. n,
    run = function(_, x) return ops.square_sum(x) end,
    inputs = { { shape = { n } } },
    reference = function(_, x) return ops.sum(x * x) end,
    tolerance = { float32 = 2e-7, float64 = 1e-13, bfloat16 = 2e-7 },
  }
end

return cases
