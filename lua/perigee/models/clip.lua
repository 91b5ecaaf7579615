--- CLIP's picture encoders (Radford et al. 2021, arXiv 2103.00020): vision transformers with a norm before the blocks
--- and QuickGELU. As in REPA, their tokens are those of the last block, without the norm after it. Pictures are resized
--- to the size that the model was trained with, so B/16 has a grid of 14x14.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field clip_vit_b_32 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field clip_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field clip_vit_l_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field clip_vit_l_14_336 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

local sizes = { b_32 = { 768, 12, 12, 32, 224 }, b_16 = { 768, 12, 12, 16, 224 }, l_14 = { 1024, 16, 24, 14, 224 },
  l_14_336 = { 1024, 16, 24, 14, 336 } }
for size, w in pairs(sizes) do
  local name = "clip_vit_" .. size
  M[name] = Vit.named(name, {
    width = w[1], heads = w[2], depth = w[3], patch = w[4], pre_norm = true, final_norm = false, patch_bias = false,
    gelu = "quick", epsilon = 1e-5,
  }, {
    image = w[5], mean = { 0.48145466, 0.4578275, 0.40821073 }, std = { 0.26862954, 0.26130258, 0.27577711 },
  })
end

return M
