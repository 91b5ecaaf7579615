--- Self-attention over all tokens, with one projection for queries, keys and values.
local Linear = require "perigee.nn.linear"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local taps = require "perigee.nn.taps"

local Attention = module.class "attention"

---@class perigee.nn
---@field attention fun(width: integer, heads: integer): perigee.Module  x [B,N,width] -> [B,N,width]

---@param width integer
---@param heads integer  width is heads · head size
function Attention:build(width, heads)
  if width % heads ~= 0 then core.fail("attention: width %d does not divide into %d heads", width, heads) end
  self.heads, self.head_size = heads, width / heads
  self.qkv = Linear(width, 3 * width)
  self.projection = Linear(width, width)
end

--- Queries, keys and values of x [B,N,D], packed: [B,N,3,H,d].
function Attention:packed(x)
  return self.qkv(x):reshape { x.shape[1], x.shape[2], 3, self.heads, self.head_size }
end

--- x [B,N,D] -> [B,N,D]. The packed qkv is published under `tap`, where one is named.
function Attention:forward(x, tap)
  local qkv = self:packed(x)
  if tap then taps.publish(tap, qkv) end
  local attended = ops.attention(qkv, { scale = 1 / math.sqrt(self.head_size) })
  return self.projection(attended:reshape(x.shape))
end

return Attention
