--- SigLIP 2's picture encoders of one resolution (Tschannen et al. 2025, arXiv 2502.14786), which are SigLIP's too
--- (arXiv 2303.15343): vision transformers without a class token.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field siglip2_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field siglip2_vit_l_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field siglip2_vit_so400m_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field siglip2_vit_so400m_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field siglip2_vit_g_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

local sizes = { b_16 = { 768, 12, 12, 4 }, l_16 = { 1024, 16, 24, 4 }, so400m_14 = { 1152, 16, 27, 3.7362 },
  so400m_16 = { 1152, 16, 27, 3.7362 }, g_16 = { 1536, 16, 40, 4 } }
for size, w in pairs(sizes) do
  local name = "siglip2_vit_" .. size
  M[name] = Vit.named(name, {
    width = w[1], heads = w[2], depth = w[3], patch = tonumber(size:match "%d+$"), mlp_ratio = w[4],
    class_token = false, gelu = "tanh",
  }, { stored = 16, resize = { mode = "bilinear" } })
end

return M
