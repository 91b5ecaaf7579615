--- The two-layer perceptron of a transformer block, and its gated variant.
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local M = {}

local rules = { activation = { "string", "gelu_tanh" } }

local Mlp = module.class "mlp"

---@param width integer
---@param hidden integer
---@param options? { activation?: perigee.Activation }
function Mlp:build(width, hidden, options)
  options = check.options("mlp", options or {}, rules)
  self.hidden = Linear(width, hidden, { activation = options.activation })
  self.output = Linear(hidden, width)
end

--- x [B,N,width] -> [B,N,width]
function Mlp:forward(x) return self.output(self.hidden(x)) end

M.Mlp = Mlp

--- SwiGLU (Shazeer 2020, arXiv 2002.05202): output(silu(a) · b), with a and b the halves of one projection.
local SwiGlu = module.class "swiglu"

function SwiGlu:build(width, hidden)
  self.hidden = Linear(width, 2 * hidden)
  self.output = Linear(hidden, width)
end

function SwiGlu:forward(x)
  local halves = self.hidden(x):chunk(2)
  return self.output(ops.mul(ops.silu(halves[1]), halves[2]))
end

M.SwiGlu = SwiGlu

return M
