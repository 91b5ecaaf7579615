--- Self-attention on packed queries, keys and values; no [N,N] map is stored, forward or backward.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

--- B·H·N²·d: multiply-adds of one product of a map with queries, keys or values.
local function product(a)
  local s = a.qkv.shape
  return s[1] * s[4] * s[2] * s[2] * s[5]
end

local attention_backward = op.define {
  name = "attention_backward",
  rate_share = 0.75,
  inputs = { "dout", "qkv", "out", "lse" },
  outputs = { "dqkv" },
  floats = { "scale" },
  shape = function(a) return { { a.qkv.shape, a.qkv.dtype } } end,
  flops = function(a) return 5 * 2 * product(a) end, -- S again, dP, dQ, dK, dV
}

local attention = op.define {
  name = "attention",
  rate_share = 0.75,
  inputs = { "qkv" },
  outputs = { "out", "lse" },
  optional_outputs = { lse = true },
  floats = { "scale" },
  shape = function(a)
    local s = a.qkv.shape
    if #s ~= 5 or s[3] ~= 3 or op.numel(s) == 0 then
      fail("attention: qkv is %s; expected [images,tokens,3,heads,size]", text(s))
    end
    return { { { s[1], s[2], s[4], s[5] }, a.qkv.dtype }, { { s[1], s[4], s[2] }, op.stat(a.qkv.dtype) } }
  end,
  vjp = function(n, dout) return { qkv = attention_backward(dout, n.qkv, n.out, n.lse, { scale = n.scale }) } end,
  plain = function(a)
    local function heads(which) return ops.permute(ops.select(a.qkv, 3, which), { 1, 3, 2, 4 }) end
    local logits = ops.matmul(heads(1), ops.transpose(heads(2))) * a.scale
    return ops.permute(ops.matmul(ops.softmax(logits, -1), heads(3)), { 1, 3, 2, 4 })
  end,
  flops = function(a) return 2 * 2 * product(a) end,
}

return {
  --- softmax(scale·Q·Kᵀ)·V, qkv [B,N,3,H,d] -> [B,N,H,d].
  ---@param options? { scale?: number }  scale: 1/sqrt(d) unless given
  attention = function(qkv, options)
    local o = op.options("attention", options, { scale = false })
    if not op.is_operand(qkv) then fail("attention: qkv is a %s, not a tensor", type(qkv)) end
    return attention(qkv, { scale = o.scale or 1 / math.sqrt(qkv.shape[5] or 1) })
  end,
}
