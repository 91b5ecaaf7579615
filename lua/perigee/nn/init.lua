--- Layers, and the tools to write others: nn.NAME is the value of lua/perigee/nn/NAME.lua. A layer's file returns its
--- class; a tool's (module, initialise, taps, position) returns a table of functions.
local module = require "perigee.nn.module"

---@class perigee.nn
---@field module table      classes of modules, and what a module can do
---@field initialise table  first values of parameters
---@field taps table        values inside a model by name
---@field position table    fixed position embeddings
---@field class fun(name: string): table  a class of modules, with `build` and `forward` to be written
---@field parameter fun(shape: integer[], initialise: function, options?: table): perigee.Tensor
---@field buffer fun(shape: integer[], compute: fun(): perigee.Tensor): perigee.Tensor

return require("perigee.core.room").open({ module = "perigee.nn", what = "layer" }, {
  class = module.class, parameter = module.parameter, buffer = module.buffer,
})
