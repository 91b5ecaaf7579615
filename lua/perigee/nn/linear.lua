--- Linear: y = x·weightᵀ + bias, with an activation on the way out where one is named.
local activations = require "perigee.core.activations"
local check = require "perigee.core.check"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local Linear = module.class "linear"

---@class perigee.nn
---@field linear fun(inputs: integer, outputs: integer, options?: table): perigee.Module  x [..,inputs] -> [..,outputs]

local rules = {
  bias = { "boolean", true },
  activation = { "string", nil, choices = activations.names },
  initialise = { "function", initialise.xavier_uniform },
}

---@param inputs integer
---@param outputs integer
---@param options? { bias?: boolean, activation?: perigee.Activation, initialise?: function }
function Linear:build(inputs, outputs, options)
  check.value("linear: inputs", inputs, "count")
  check.value("linear: outputs", outputs, "count")
  options = check.options("linear", options or {}, rules)
  self.weight = module.parameter({ outputs, inputs }, options.initialise)
  if options.bias then self.bias = module.parameter({ outputs }, initialise.zeros) end
  self.activation = options.activation
end

--- x [..,inputs] -> [..,outputs]
function Linear:forward(x) return ops.linear(x, self.weight, self.bias, { activation = self.activation }) end

return Linear
