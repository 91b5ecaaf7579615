--- GroupNorm over groups of channels and all their positions, with weight and bias, and an activation on top where one
--- is named.
local activations = require "perigee.core.activations"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local GroupNorm = module.class "group norm"

---@class perigee.nn
---@field group_norm fun(channels: integer, options?: table): perigee.Module  x [B,channels,..] -> [B,channels,..]

local rules = {
  groups = { "count", 32 },
  epsilon = { "number", 1e-5 },
  activation = { "string", nil, choices = activations.names },
}

---@param channels integer
---@param options? { groups?: integer, epsilon?: number, activation?: perigee.Activation }
function GroupNorm:build(channels, options)
  check.value("group_norm: channels", channels, "count")
  options = check.options("group_norm", options or {}, rules)
  if channels % options.groups ~= 0 then
    core.fail("group_norm: %d channels do not divide into %d groups", channels, options.groups)
  end
  self.groups, self.epsilon, self.activation = options.groups, options.epsilon, options.activation
  self.weight = module.parameter({ channels }, initialise.ones)
  self.bias = module.parameter({ channels }, initialise.zeros)
end

--- x [B,channels,..] -> [B,channels,..]
function GroupNorm:forward(x)
  return ops.group_norm(x, { groups = self.groups, weight = self.weight, bias = self.bias, epsilon = self.epsilon,
    activation = self.activation })
end

return GroupNorm
