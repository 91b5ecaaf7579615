--- DINOv2's encoders (Oquab et al. 2023, arXiv 2304.07193): vision transformers with patches of 14, LayerScale and
--- positions of a grid of 37x37; the giant's MLPs are SwiGLU. `with_registers` adds four register tokens
--- (arXiv 2309.16588).
local core = require "perigee.core.ffi"
local tables = require "perigee.base.tables"
local Vit = require("perigee.models.vit").vit

---@class perigee.Dinov2Options : perigee.VitNamedOptions
---@field with_registers? boolean  false

---@class perigee.models
---@field dinov2_vit_s_14 fun(options?: perigee.Dinov2Options): perigee.Vit
---@field dinov2_vit_b_14 fun(options?: perigee.Dinov2Options): perigee.Vit
---@field dinov2_vit_l_14 fun(options?: perigee.Dinov2Options): perigee.Vit
---@field dinov2_vit_g_14 fun(options?: perigee.Dinov2Options): perigee.Vit
local M = {}

local sizes = { s = { 384, 6, 12 }, b = { 768, 12, 12 }, l = { 1024, 16, 24 }, g = { 1536, 24, 40 } }
for size, w in pairs(sizes) do
  local name = ("dinov2_vit_%s_14"):format(size)
  local make = Vit.named(name, {
    width = w[1], heads = w[2], depth = w[3], patch = 14, layer_scale = true, swiglu = size == "g",
  }, { stored = 37, mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std })

  M[name] = function(options)
    local all = tables.merged(options)
    if all.with_registers ~= nil and type(all.with_registers) ~= "boolean" then
      core.fail("%s: option 'with_registers' is a %s; expected true or false", name, type(all.with_registers))
    end
    if all.with_registers then all.registers = 4 end
    all.with_registers = nil
    return make(all)
  end
end

return M
