--- What models are made of.
local mlp = require "perigee.nn.mlp"
local module = require "perigee.nn.module"

return {
  module = module,
  class = module.class,
  parameter = module.parameter,
  buffer = module.buffer,
  group = module.group,
  initialise = require "perigee.nn.initialise",
  taps = require "perigee.nn.taps",
  position = require "perigee.nn.position",
  linear = require "perigee.nn.linear",
  layernorm = require "perigee.nn.layernorm",
  embedding = require "perigee.nn.embedding",
  label_embedding = require "perigee.nn.labels",
  time_embedding = require "perigee.nn.time",
  patch_embedding = require "perigee.nn.patches",
  conv2d = require "perigee.nn.convolution",
  attention = require "perigee.nn.attention",
  mlp = mlp.Mlp,
  swiglu = mlp.SwiGlu,
  layer_scale = require "perigee.nn.scale",
  projector = require "perigee.nn.projector",
}
