--- softmax and its logarithm along any dimension.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local function softmax_of(name)
  local backward = op.define {
    name = name .. "_backward",
    inputs = { "dy", "y" },
    outputs = { "dx" },
    inplace = { dx = "dy" },
    shape = function(a) return { { a.y.shape, a.y.dtype } } end,
    flops = function(a) return 4 * op.numel(a.y.shape) end,
  }
  local forward = op.define {
    name = name,
    inputs = { "x" },
    inplace = { y = "x" },
    shape = function(a) return { { a.x.shape, a.x.dtype } } end,
    vjp = function(n, dy) return { x = backward(dy, n.y) } end,
    flops = function(a) return 5 * op.numel(a.x.shape) end,
    plain = function(a)
      local e = ops.exp(a.x - ops.max(a.x, -1, { keep = true }))
      local y = e / ops.sum(e, -1, { keep = true })
      return name == "softmax" and y or ops.log(y)
    end,
  }
  return function(x, dim)
    op.expect(name, x)
    dim = op.dimension(name, dim or -1, x.shape)
    if dim == #x.shape then return forward(x) end
    return ops.transpose(forward(ops.transpose(x, dim, -1)), dim, -1)
  end
end

local softmax, log_softmax = softmax_of "softmax", softmax_of "log_softmax"
return {
  softmax = softmax, log_softmax = log_softmax,
  methods = { softmax = softmax, log_softmax = log_softmax },
}
