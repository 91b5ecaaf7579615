--- y by its definition, in Lua numbers: nested tables from float64 tensors.
local function direct(x, mean, size, stride, padding)
  local height, width, y = #x[1][1], #x[1][1][1], {}
  for b = 1, #x do
    y[b] = {}
    for c, plane in ipairs(x[b]) do
      y[b][c] = {}
      for p = 0, math.floor((height + 2 * padding - size) / stride) do
        local row = {}
        for q = 0, math.floor((width + 2 * padding - size) / stride) do
          local seen = {}
          for i = 1, size do
            for j = 1, size do
              local line = plane[p * stride + i - padding]
              seen[#seen + 1] = line and line[q * stride + j - padding]
            end
          end
          local sum, largest = 0, -math.huge
          for _, value in ipairs(seen) do sum, largest = sum + value, math.max(largest, value) end
          row[q + 1] = mean and sum / #seen or largest
        end
        y[b][c][p + 1] = row
      end
    end
  end
  return y
end

local cases = {}

local function add(shape, size, stride, padding, gradients)
  for _, name in ipairs { "max_pool", "average_pool" } do
    cases[#cases + 1] = {
      name = ("%s %s, size %d, stride %d, padding %d"):format(name, table.concat(shape, "x"), size, stride, padding),
      run = function(ops, x) return ops[name](x, size, { stride = stride, padding = padding }) end,
      inputs = { { shape = shape } },
      reference = function(_, x) return direct(x:totable(), name == "average_pool", size, stride, padding) end,
      gradients = gradients and { 1 } or nil,
    }
  end
end

add({ 2, 3, 8, 8 }, 3, 1, 1, true) -- what the Inception network has
add({ 2, 3, 9, 7 }, 3, 2, 0, true)
add({ 1, 2, 17, 35 }, 3, 1, 1)
add({ 1, 1, 6, 140 }, 3, 1, 1) -- wider than what is worked on side by side
add({ 1, 1, 1, 1 }, 1, 1, 0, true)
add({ 1, 1, 1, 1 }, 2, 1, 1, true)
add({ 1, 2, 3, 1 }, 2, 1, 1, true)
add({ 3, 1, 33, 2 }, 2, 3, 0, true) -- rows that no window covers
add({ 1, 2, 5, 6 }, 4, 2, 2, true)
add({ 1, 1, 31, 33 }, 5, 3, 2, true)

local function wrong(name, run, shape, message)
  cases[#cases + 1] = { name = name, run = run, inputs = { { shape = shape } }, error = message }
end

wrong("max_pool of a matrix", function(ops, x) return ops.max_pool(x, 2) end, { 3, 4 },
  "pool: x is [3,4]; expected [B,C,H,W]")
wrong("max_pool by windows too large", function(ops, x) return ops.max_pool(x, 5, { padding = 1 }) end, { 1, 1, 2, 9 },
  "x is [1,1,2,9], 4x11 with its padding; windows of 5 are larger")
wrong("average_pool of half a pixel", function(ops, x) return ops.average_pool(x, 1.5) end, { 1, 1, 2, 2 },
  "size is 1.5; expected a whole number from 1")
wrong("average_pool with padding alone", function(ops, x) return ops.average_pool(x, 3, { padding = 2 }) end,
  { 1, 1, 4, 4 }, "average_pool: padding is 2; expected a whole number from 0 to half of size 3")

cases[#cases + 1] = {
  name = "max_pool of NaN and of equals",
  check = function()
    local tensor, ops = require "perigee.core.tensor", require "perigee.core.ops"
    local nan = 0 / 0
    local x = tensor.tensor({ 1, nan, 3, 4, 5, 5, 5, 5 }, { 1, 2, 2, 2 }, "float32")
    local y = ops.max_pool(x, 2):totable()
    assert.is_true(y[1][1][1][1] ~= y[1][1][1][1])
    assert.equal(5, y[1][2][1][1])
    local pg = require "perigee"
    local equal = x:narrow(2, 2, 1):contiguous()
    local dx = pg.grad(function(z) return ops.sum(ops.max_pool(z, 2)) end, { equal })
    dx = tensor.is_tensor(dx) and dx or dx[1]
    assert.same({ { { { 1, 0 }, { 0, 0 } } } }, dx:totable()) -- the first of them
  end,
}

return cases
