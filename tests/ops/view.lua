--- Views against loops over numbers: indexing, every step-th entry, parts.
local cases = {}
local function case(t) cases[#cases + 1] = t end

--- The elements of a nested table at the places that lists give for each dimension.
local function at(t, lists, d)
  d = d or 1
  if not lists[d] then return t end
  local result = {}
  for k, place in ipairs(lists[d]) do result[k] = at(t[place], lists, d + 1) end
  return result
end

case {
  name = "x[key] of 3x5x4", inputs = { { shape = { 3, 5, 4 } } }, gradients = { 1 },
  run = function(_, x) return x[2], x[{ {}, -1 }], x[{ { 1, 3, 2 }, { 2, 3 }, 4 }], x[{ 3, { 1, 5, 3 } }] end,
  reference = function(_, x)
    local t = x:totable()
    local last = {}
    for k = 1, 3 do last[k] = t[k][5] end
    local steps = { { t[1][2][4], t[1][3][4] }, { t[3][2][4], t[3][3][4] } }
    return t[2], last, steps, { t[3][1], t[3][4] }
  end,
}
for _, step in ipairs { 1, 2, 3, 7 } do
  case {
    name = "every entry by " .. step, inputs = { { shape = { 7, 3 } }, { shape = { 2, 6 } } }, gradients = { 1, 2 },
    run = function(ops, x, y) return ops.step(x, 1, step), ops.step(y, -1, step) end,
    reference = function(_, x, y)
      local rows, columns = {}, {}
      for k = 1, 7, step do rows[#rows + 1] = k end
      for k = 1, 6, step do columns[#columns + 1] = k end
      return at(x:totable(), { rows }), at(y:totable(), { { 1, 2 }, columns })
    end,
  }
end
case {
  name = "parts and what they make again", inputs = { { shape = { 5, 4 } } }, gradients = { 1 },
  run = function(ops, x)
    return ops.concat(x:split(2), 1), ops.concat(x:split({ 3, 1 }, 2), 2), ops.stack(x:unbind())
  end,
  reference = function(_, x) return x, x, x end,
}
case {
  name = "view, t, T, expand with -1, negative places", inputs = { { shape = { 3, 4 } } }, gradients = { 1 },
  strided = false,
  run = function(_, x)
    return x:view(2, 6), x:t(), x.T:contiguous(), x:expand(2, -1, 4), x:narrow(2, -2, 2), x:select(-1, -4)
  end,
  reference = function(ops, x)
    return ops.reshape(x, { 2, 6 }), ops.transpose(x, 1, 2), ops.permute(x, { 2, 1 }), ops.stack { x, x },
      at(x:totable(), { { 1, 2, 3 }, { 3, 4 } }), ops.reshape(ops.narrow(x, 2, 1, 1), { 3 })
  end,
}
case {
  name = "view, strided", inputs = { { shape = { 3, 4 } } }, strided = false,
  run = function(_, x) return x:t():view(4, 3, 1) end,
  reference = function(ops, x) return ops.unsqueeze(ops.transpose(x, 1, 2), 3) end,
}
return cases
