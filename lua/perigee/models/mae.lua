--- MAE's encoders (He et al. 2021, arXiv 2111.06377). As in REPA, their tokens are those before the final norm.
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field mae_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field mae_vit_l_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field mae_vit_h_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

for size, w in pairs { b = { 768, 12, 12, 16 }, l = { 1024, 16, 24, 16 }, h = { 1280, 16, 32, 14 } } do
  local name = ("mae_vit_%s_%d"):format(size, w[4])
  M[name] = Vit.named(name,
    { width = w[1], heads = w[2], depth = w[3], patch = w[4], final_norm = false },
    { stored = 224 / w[4], mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std })
end

return M
