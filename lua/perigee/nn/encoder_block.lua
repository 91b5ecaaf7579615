--- A block of a vision transformer: attention, then a perceptron, each on normalised tokens and added to them.
local Attention = require "perigee.nn.attention"
local LayerNorm = require "perigee.nn.layernorm"
local LayerScale = require "perigee.nn.layer_scale"
local Mlp = require "perigee.nn.mlp"
local SwiGlu = require "perigee.nn.swiglu"
local check = require "perigee.core.check"
local module = require "perigee.nn.module"
local taps = require "perigee.nn.taps"

local EncoderBlock = module.class "vit block"

---@class perigee.nn
---@field encoder_block fun(options: perigee.EncoderBlockOptions): perigee.Module  x [B,N,width] -> [B,N,width]

---@class perigee.EncoderBlockOptions
---@field width integer
---@field heads integer
---@field hidden integer         width of the perceptron's hidden layer
---@field epsilon? number        of the layer norms: 1e-6
---@field layer_scale? boolean   both branches are scaled channel by channel: false
---@field activation? perigee.Activation  gelu_erf
---@field swiglu? boolean        SwiGLU in the activation's place: false

local rules = {
  width = "count", heads = "count", hidden = "count", epsilon = { "number", 1e-6 }, layer_scale = { "boolean", false },
  activation = { "string", "gelu_erf" }, swiglu = { "boolean", false },
}

---@param options perigee.EncoderBlockOptions
function EncoderBlock:build(options)
  local o = check.options("encoder_block", options, rules)
  self.norm1, self.norm2 = LayerNorm(o.width, { epsilon = o.epsilon }), LayerNorm(o.width, { epsilon = o.epsilon })
  self.attention = Attention(o.width, o.heads)
  self.mlp = o.swiglu and SwiGlu(o.width, o.hidden) or Mlp(o.width, o.hidden, { activation = o.activation })
  if o.layer_scale then self.scale1, self.scale2 = LayerScale(o.width), LayerScale(o.width) end
end

--- x [B,N,D] -> [B,N,D]. Publishes "qkv of block NUMBER" and "neurons of block NUMBER", the perceptron's hidden layer
--- [B,N,hidden]. `turns` are rotary positions of the last tokens (nn.rotary); `change` is called with the hidden layer
--- and returns what stands for it.
---@param turns? perigee.Tensor
---@param change? fun(hidden: perigee.Value): perigee.Value
function EncoderBlock:forward(x, number, turns, change)
  local attended = self.attention(self.norm1(x), "qkv of block " .. number, turns)
  x = self.scale1 and self.scale1(x, attended) or x + attended
  local transformed = self.mlp(self.norm2(x), function(hidden)
    taps.publish("neurons of block " .. number, hidden)
    return change and change(hidden) or hidden
  end)
  return self.scale2 and self.scale2(x, transformed) or x + transformed
end

return EncoderBlock
