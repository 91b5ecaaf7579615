--- The gradient of narrow (view.lua).
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local narrow_backward_op = op.define {
  name = "narrow_backward",
  inputs = { "dy" },
  outputs = { "dx" },
  ints = { "dim", "start" }, -- counted from 0
  options = { "size" },
  strided = true,
  shape = function(a)
    local shape = {}
    for d, size in ipairs(a.dy.shape) do shape[d] = size end
    shape[a.dim + 1] = a.size
    return { { shape, a.dy.dtype } }
  end,
  vjp = function(n, ddx)
    return { dy = ops.narrow(ddx, n.dim + 1, n.start + 1, n.dy.shape[n.dim + 1]) }
  end,
  flops = function() return 0 end,
}

--- The gradient of narrow: dy at places start, start + 1, ... of a dimension of `size` places, zero elsewhere.
local function narrow_backward(dy, options)
  return narrow_backward_op(dy, { dim = options.dim - 1, start = options.start - 1, size = options.size })
end

return { narrow_backward = narrow_backward }
