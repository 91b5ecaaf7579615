--- Self-attention over all tokens, with one projection for queries, keys and values; rotary positions on request.
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local taps = require "perigee.nn.taps"

local Attention = module.class "attention"

---@class perigee.nn
---@field attention fun(width: integer, heads: integer, options?: table): perigee.Module  x [B,N,width] -> [B,N,width]

local rules = { interleaved = { "boolean", false } }

---@param width integer
---@param heads integer  width is heads · head size
---@param options? { interleaved?: boolean }  which pairs rotary positions turn (ops.rotary)
function Attention:build(width, heads, options)
  if width % heads ~= 0 then core.fail("attention: width %d does not divide into %d heads", width, heads) end
  self.heads, self.head_size = heads, width / heads
  self.interleaved = check.options("attention", options or {}, rules).interleaved
  self.qkv = Linear(width, 3 * width)
  self.projection = Linear(width, width)
end

--- Queries, keys and values of x [B,N,D], packed: [B,N,3,H,d].
function Attention:packed(x)
  return self.qkv(x):reshape { x.shape[1], x.shape[2], 3, self.heads, self.head_size }
end

--- x [B,N,D] -> [B,N,D]. With `turns` [1 or B,M,2,d/2] of nn.rotary, the queries and keys of the last M tokens are
--- rotated. The packed qkv, rotated, is published under `tap`, where one is named.
---@param turns? perigee.Tensor|perigee.Value
function Attention:forward(x, tap, turns)
  local qkv = self:packed(x)
  if turns then
    qkv = ops.rotary(qkv, turns, { skip = x.shape[2] - turns.shape[2], interleaved = self.interleaved })
  end
  if tap then taps.publish(tap, qkv) end
  local attended = ops.attention(qkv, { scale = 1 / math.sqrt(self.head_size) })
  return self.projection(attended:reshape(x.shape))
end

return Attention
