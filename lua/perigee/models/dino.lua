--- DINO's encoders (Caron et al. 2021, arXiv 2104.14294): vision transformers with patches of 16 or 8.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field dino_vit_s_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dino_vit_s_8 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dino_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dino_vit_b_8 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

for size, w in pairs { s = { 384, 6 }, b = { 768, 12 } } do
  for _, patch in ipairs { 16, 8 } do
    local name = ("dino_vit_%s_%d"):format(size, patch)
    M[name] = Vit.named(name, { width = w[1], heads = w[2], depth = 12, patch = patch },
      { stored = 224 / patch, mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std })
  end
end

return M
