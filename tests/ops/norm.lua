--- Norms against sums over numbers.
local function each(x, f)
  local sum = {}
  for i, plane in ipairs(x:totable()) do
    for j, row in ipairs(plane) do
      for k, v in ipairs(row) do f(sum, i, j, k, math.abs(v)) end
    end
  end
  return sum
end

return {
  { name = "norm of 3x31x4", inputs = { { shape = { 3, 31, 4 } } }, gradients = { 1 },
    run = function(_, x) return x:norm(), x:norm(2, 2), x:norm(1, { 1, 2 }), x:norm(3, { 1, 3 }, { keep = true }) end,
    reference = function(ops, x)
      local all = each(x, function(s, _, _, _, v) s[1] = (s[1] or 0) + v * v end)
      local ones = each(x, function(s, _, _, k, v) s[k] = (s[k] or 0) + v end)
      local cubes = each(x, function(s, _, j, _, v) s[j] = (s[j] or 0) + v ^ 3 end)
      for j, v in ipairs(cubes) do cubes[j] = { v ^ (1 / 3) } end
      return math.sqrt(all[1]), ops.sqrt(ops.sum(ops.square(x), 2)), ones, { cubes }
    end },
  { name = "largest, smallest, not zero", inputs = { { values = { { 3, -4, 0 }, { 0, 0, 0 } } } }, tolerance = 0,
    run = function(_, x)
      return x:norm(math.huge, 2), x:norm(-math.huge, 1), x:norm(0, 2)
    end,
    reference = function() return { 4, 0 }, { 0, 0, 0 }, { 2, 0 } end },
  { name = "norm of zeros: its gradient is 0",
    check = function()
      local core = require "perigee.core"
      for _, p in ipairs { 2, 3 } do
        local x = core.tensor.tensor { { 0, 0 }, { 3, 4 } }
        local gradients = core.grad(function(v) return v:norm(p, 2):sum() end, { x })
        assert.same({ 0, 0 }, gradients[1][1]:totable())
        assert.near(p == 2 and 0.8 or 16 / 91 ^ (2 / 3), gradients[1][2][2]:item(), 1e-6)
      end
    end },
  { name = "norm of whole numbers", inputs = { { values = { 3, 4 }, dtype = "int64" } }, dtypes = { "float32" },
    run = function(_, x) return x:norm() end, reference = function() return 5 end },
}
