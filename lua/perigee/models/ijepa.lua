--- I-JEPA's encoders (Assran et al. 2023, arXiv 2301.08243): vision transformers without a class token.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field ijepa_vit_h_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field ijepa_vit_h_16 fun(options?: perigee.VitNamedOptions): perigee.Vit  of pictures of 448
---@field ijepa_vit_g_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

local sizes = { h_14 = { 1280, 16, 32, 14, 4, 224 }, h_16 = { 1280, 16, 32, 16, 4, 448 },
  g_16 = { 1408, 16, 40, 16, 48 / 11, 224 } }
for size, w in pairs(sizes) do
  local name = "ijepa_vit_" .. size
  M[name] = Vit.named(name,
    { width = w[1], heads = w[2], depth = w[3], patch = w[4], mlp_ratio = w[5], class_token = false },
    { stored = w[6] / w[4], mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std })
end

return M
