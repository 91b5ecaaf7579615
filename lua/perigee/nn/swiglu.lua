--- SwiGLU (Shazeer 2020, arXiv 2002.05202): output(silu(a) · b), with a and b the halves of one projection.
local Linear = require "perigee.nn.linear"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local SwiGlu = module.class "swiglu"

---@class perigee.nn
---@field swiglu fun(width: integer, hidden: integer): perigee.Module  x [B,N,width] -> [B,N,width]

---@param width integer
---@param hidden integer
function SwiGlu:build(width, hidden)
  self.hidden = Linear(width, 2 * hidden)
  self.output = Linear(hidden, width)
end

--- x [B,N,width] -> [B,N,width]; `change` may put something else in place of the product [B,N,hidden].
---@param change? fun(hidden: perigee.Value): perigee.Value
function SwiGlu:forward(x, change)
  local halves = self.hidden(x):chunk(2)
  local hidden = ops.mul(ops.silu(halves[1]), halves[2])
  return self.output(change and change(hidden) or hidden)
end

return SwiGlu
