--- Convolution of images, with the weight [O,C,kh,kw] and bias [O] of PyTorch's Conv2d.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local Convolution = module.class "conv2d"

---@class perigee.nn
---@field conv2d fun(inputs: integer, outputs: integer, kernel: integer|integer[], options?: table): perigee.Module

local rules = { stride = { "count", 1 }, padding = { "natural|table", 0 }, bias = { "boolean", true } }

---@param inputs integer  channels
---@param outputs integer  channels
---@param kernel integer|integer[]  its size, or { height, width }
---@param options? { stride?: integer, padding?: integer|integer[], bias?: boolean }  padding: zeros on all sides, or
---  { top, bottom, left, right }
function Convolution:build(inputs, outputs, kernel, options)
  options = check.options("conv2d", options or {}, rules)
  local height, width = unpack(check.size(kernel))
  local spread = 1 / math.sqrt(inputs * height * width) -- PyTorch's first values
  self.weight = module.parameter({ outputs, inputs, height, width }, initialise.uniform(spread))
  if options.bias then self.bias = module.parameter({ outputs }, initialise.uniform(spread)) end
  self.stride, self.padding = options.stride, options.padding
end

--- x [B,C,H,W] -> [B,O,P,Q]
function Convolution:forward(x)
  local channels = self.weight.shape[2]
  if #x.shape ~= 4 or x.shape[2] ~= channels then
    core.fail("conv2d: expected [B,%d,H,W], got %s", channels, core.shape_text(x.shape))
  end
  return ops.convolution(x, self.weight, self.bias, { stride = self.stride, padding = self.padding })
end

return Convolution
