--- Diagonals against loops over numbers.
local cases = {}
for _, shape in ipairs { { 3, 3 }, { 4, 2 }, { 2, 5 }, { 1, 1 } } do
  cases[#cases + 1] = {
    name = ("diagonal of %dx%d"):format(unpack(shape)), inputs = { { shape = shape } }, gradients = { 1 },
    run = function(ops, x) return ops.diagonal(x) end,
    reference = function(_, x)
      local t, list = x:totable(), {}
      for k = 1, math.min(unpack(shape)) do list[k] = t[k][k] end
      return list
    end,
  }
end
cases[#cases + 1] = {
  name = "diagonal of the outer dimensions", inputs = { { shape = { 3, 2, 4 } } }, gradients = { 1 },
  run = function(ops, x) return ops.diagonal(x, 3, 1) end,
  reference = function(_, x)
    local t, list = x:totable(), { {}, {} }
    for j = 1, 2 do
      for k = 1, 3 do list[j][k] = t[k][j][k] end
    end
    return list
  end,
}
return cases
