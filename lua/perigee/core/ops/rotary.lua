--- Rotary positions (Su et al. 2021, arXiv 2104.09864) of packed queries and keys.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

--- Cosines or sines [1 or B,N−skip,1,1,d/2] of the turns, in x's dtype of statistics.
local function part(turns, which) return ops.narrow(ops.reshape(turns, {
  turns.shape[1], turns.shape[2], 2, 1, turns.shape[4] }), 3, which, 1) end

--- The rotation by other ops, in x's dtype.
local function composed(a)
  local s = a.x.shape
  local tokens, half = s[2] - a.skip, s[5] / 2
  local turned = ops.narrow(ops.narrow(a.x, 2, a.skip + 1, tokens), 3, 1, 2)
  local wide = ops.cast(turned, a.turns.dtype)
  local shape = { s[1], tokens, 2, s[4], half, 2 }
  local pairs_of = a.interleaved == 1 and ops.reshape(wide, shape)
    or ops.permute(ops.reshape(wide, { s[1], tokens, 2, s[4], 2, half }), { 1, 2, 3, 4, 6, 5 })
  local u, v = ops.select(pairs_of, 6, 1), ops.select(pairs_of, 6, 2)
  local c, sine = part(a.turns, 1), part(a.turns, 2)
  if a.inverse == 1 then sine = ops.neg(sine) end
  local first, second = u * c - v * sine, u * sine + v * c
  local made
  if a.interleaved == 1 then
    made = ops.concat({ ops.reshape(first, { s[1], tokens, 2, s[4], half, 1 }),
      ops.reshape(second, { s[1], tokens, 2, s[4], half, 1 }) }, 6)
  else made = ops.concat({ first, second }, 5) end
  made = ops.cast(ops.reshape(made, { s[1], tokens, 2, s[4], s[5] }), a.x.dtype)
  local values = ops.narrow(ops.narrow(a.x, 2, a.skip + 1, tokens), 3, 3, 1)
  local patches = ops.concat({ made, values }, 3)
  return a.skip > 0 and ops.concat({ ops.narrow(a.x, 2, 1, a.skip), patches }, 2) or patches
end

local rotary
rotary = op.define {
  name = "rotary",
  inputs = { "x", "turns" },
  outputs = { "y" },
  ints = { "skip", "interleaved", "inverse" },
  inplace = { y = "x" },
  shape = function(a)
    local s, t = a.x.shape, a.turns.shape
    if #s ~= 5 or s[3] ~= 3 then fail("rotary: qkv is %s; expected [images,tokens,3,heads,size]", text(s)) end
    if s[5] % 2 ~= 0 then fail("rotary: heads of size %d; rotary positions turn pairs, so it must be even", s[5]) end
    local tokens = s[2] - a.skip
    if #t ~= 4 or t[1] ~= 1 and t[1] ~= s[1] or t[2] ~= tokens or t[3] ~= 2 or t[4] ~= s[5] / 2 then
      fail("rotary: qkv is %s with %d tokens left out, turns are %s; expected [1 or %d,%d,2,%d]", text(s), a.skip,
        text(t), s[1], tokens, s[5] / 2)
    end
    if a.turns.dtype ~= op.stat(a.x.dtype) then
      fail("rotary: turns are %s; with qkv in %s they must be %s", a.turns.dtype, a.x.dtype, op.stat(a.x.dtype))
    end
    return { { s, a.x.dtype } }
  end,
  vjp = function(n, dy)
    return { x = rotary(dy, n.turns, { skip = n.skip, interleaved = n.interleaved, inverse = 1 - n.inverse }) }
  end,
  plain = composed,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

return {
  --- Queries and keys rotated by their tokens' angles: qkv [B,N,3,H,d] -> the same shape. `turns` are cosines and sines
  --- (nn.rotary makes them), [1,N−skip,2,d/2] or, other ones for every image, [B,N−skip,2,d/2], in float32 (float64
  --- with qkv in float64); no gradient flows to them. Options: skip, class and register tokens in front, which stay
  --- as they are (0); interleaved, pairs are (2i, 2i+1) instead of (i, i + d/2) (false).
  ---@param options? { skip?: integer, interleaved?: boolean }
  rotary = function(qkv, turns, options)
    op.expect("rotary", qkv)
    op.expect("rotary", turns)
    local o = op.options("rotary", options, { skip = 0, interleaved = false })
    if type(o.skip) ~= "number" or o.skip < 0 or o.skip % 1 ~= 0 then
      fail("rotary: skip is %s; expected a whole number from 0", tostring(o.skip))
    end
    return rotary(qkv, turns, { skip = o.skip, interleaved = o.interleaved and 1 or 0, inverse = 0 })
  end,
}
