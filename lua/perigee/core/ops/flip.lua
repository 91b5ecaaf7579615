--- Dimensions in reverse order.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local sizes = require "perigee.core.sizes"

local flip_op = op.define {
  name = "flip",
  inputs = { "x" },
  ints = { "dim" }, -- counted from 0
  strided = true,
  shape = function(a) return { { a.x.shape, a.x.dtype } } end,
  vjp = function(n, dy) return { x = ops.flip(dy, n.dim + 1) } end,
  flops = function() return 0 end,
}

--- A dimension in reverse order, or several of them.
local function flip(x, first, b, c, d, e, f, g, h)
  for _, dim in ipairs(sizes("flip", first, b, c, d, e, f, g, h)) do
    x = flip_op(x, { dim = op.dimension("flip", dim, x.shape) - 1 })
  end
  return x
end

return { flip = flip, methods = { flip = flip } }
