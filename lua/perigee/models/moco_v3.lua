--- MoCo v3's encoders (Chen et al. 2021, arXiv 2104.02057): vision transformers with fixed positions; S has 12 heads.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field moco_v3_vit_s_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field moco_v3_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field moco_v3_vit_l_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

for size, w in pairs { s = { 384, 12, 12 }, b = { 768, 12, 12 }, l = { 1024, 16, 24 } } do
  local name = ("moco_v3_vit_%s_16"):format(size)
  M[name] = Vit.named(name, { width = w[1], heads = w[2], depth = w[3], patch = 16 }, {
    stored = 14, mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std, names = "moco_v3", position = { kind = "sincos" },
  })
end

return M
