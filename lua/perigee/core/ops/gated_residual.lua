--- x + gate·y: a residual connection whose branch is scaled per image and channel, or per channel.
local column_sums = require "perigee.core.column_sums"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local backward = op.define {
  name = "gated_residual_backward",
  inputs = { "dout", "y", "gate" },
  outputs = { "dy", "dgate", "dbias" },
  results = 2,
  strided = { gate = true },
  optional_outputs = { dgate = true, dbias = true },
  inplace = { dy = "y" },
  shape = function(a)
    op.expect_one_dtype("gated_residual_backward", a, { "y", "dout", "gate" })
    return { { a.y.shape, a.y.dtype }, { a.gate.shape, a.y.dtype }, { { a.y.shape[3] }, a.y.dtype } }
  end,
  flops = function(a) return 3 * op.numel(a.y.shape) end,
  column_sums = { of = 1, into = 3 }, -- of dy
  fusions = { column_sums.take_in },
}

local gated_residual = op.define {
  name = "gated_residual",
  inputs = { "x", "y", "gate" },
  outputs = { "out" },
  strided = { gate = true },
  inplace = { out = "y" },
  recompute = true,
  shape = function(a)
    op.expect_one_dtype("gated_residual", a, { "x", "y", "gate" })
    local x, gate = a.x.shape, a.gate.shape
    if #x ~= 3 or not op.same_shape(x, a.y.shape) then
      fail("gated_residual: x is %s, y is %s; both must be [B,N,D]", text(x), text(a.y.shape))
    end
    if #gate ~= 3 or (gate[1] ~= x[1] and gate[1] ~= 1) or gate[2] ~= 1 or gate[3] ~= x[3] then
      fail("gated_residual: x is %s, gate is %s; it must be [%d,1,%d] or [%d]", text(x), text(gate), x[1], x[3], x[3])
    end
    return { { x, a.x.dtype } }
  end,
  vjp = function(n, dout)
    local gradients = { x = dout }
    if n:needs "y" or n:needs "gate" then gradients.y, gradients.gate = backward(dout, n.y, n.gate) end
    return gradients
  end,
  plain = function(a) return a.x + a.gate * a.y end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

return {
  --- x + gate·y with x, y [B,N,D] and gate [B,1,D], [1,1,D] or [D] (LayerScale).
  gated_residual = function(x, gate, y)
    if #gate.shape == 1 then gate = ops.reshape(gate, { 1, 1, gate.shape[1] }) end
    return gated_residual(x, y, op.rows_in_one_piece(gate))
  end,
}
