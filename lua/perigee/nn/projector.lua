--- The projector of feature alignment (REPA, arXiv 2410.06940): three linear layers with SiLU between.
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local module = require "perigee.nn.module"

local Projector = module.class "projector"

---@class perigee.nn
---@field projector fun(options: { width: integer, hidden: integer, out: integer }): perigee.Module

---@param options { width: integer, hidden: integer, out: integer }  the student's width, the teacher's
function Projector:build(options)
  local o = check.options("projector", options, { width = "count", hidden = "count", out = "count" })
  self.layers = {
    Linear(o.width, o.hidden, { activation = "silu" }),
    Linear(o.hidden, o.hidden, { activation = "silu" }),
    Linear(o.hidden, o.out),
  }
  self:assign_names()
end

--- x [..,width] -> [..,out]
function Projector:forward(x)
  for _, layer in ipairs(self.layers) do x = layer(x) end
  return x
end

return Projector
