--- DINOv3's encoders (Siméoni et al. 2025, arXiv 2508.10104): vision transformers with patches of 16, four register
--- tokens, rotary positions and LayerScale; in s_plus and h_plus the MLPs are SwiGLU.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field dinov3_vit_s_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov3_vit_s_plus_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov3_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov3_vit_l_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov3_vit_h_plus_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

local sizes = {
  s = { 384, 6, 12 }, s_plus = { 384, 6, 12, 6 }, b = { 768, 12, 12 }, l = { 1024, 16, 24 },
  h_plus = { 1280, 20, 32, 6 },
}
for size, w in pairs(sizes) do
  local name = ("dinov3_vit_%s_16"):format(size)
  M[name] = Vit.named(name, {
    width = w[1], heads = w[2], depth = w[3], patch = 16, registers = 4, layer_scale = true, swiglu = w[4] ~= nil,
    mlp_ratio = w[4] or 4, epsilon = 1e-5,
  }, {
    stored = 16, mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std, resize = { mode = "bilinear", antialias = true },
    position = { kind = "rotary", base = 100 },
  })
end

return M
