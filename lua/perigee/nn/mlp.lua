--- The two-layer perceptron of a transformer block.
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local module = require "perigee.nn.module"

local rules = { activation = { "string", "gelu_tanh" } }

local Mlp = module.class "mlp"

---@class perigee.nn
---@field mlp fun(width: integer, hidden: integer, options?: table): perigee.Module  x [B,N,width] -> [B,N,width]

---@param width integer
---@param hidden integer
---@param options? { activation?: perigee.Activation }
function Mlp:build(width, hidden, options)
  options = check.options("mlp", options or {}, rules)
  self.hidden = Linear(width, hidden, { activation = options.activation })
  self.output = Linear(hidden, width)
end

--- x [B,N,width] -> [B,N,width]; `change` may put something else in place of the hidden layer [B,N,hidden].
---@param change? fun(hidden: perigee.Value): perigee.Value
function Mlp:forward(x, change)
  local hidden = self.hidden(x)
  return self.output(change and change(hidden) or hidden)
end

return Mlp
