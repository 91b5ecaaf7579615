--- Dimensions in reverse order.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local flip_op = op.define {
  name = "flip",
  inputs = { "x" },
  ints = { "dim" }, -- counted from 0
  strided = true,
  shape = function(a) return { { a.x.shape, a.x.dtype } } end,
  vjp = function(n, dy) return { x = ops.flip(dy, n.dim + 1) } end,
  flops = function() return 0 end,
}

--- A dimension in reverse order.
local function flip(x, dim)
  return flip_op(x, { dim = op.dimension("flip", dim, x.shape) - 1 })
end

return { flip = flip, methods = { flip = flip } }
