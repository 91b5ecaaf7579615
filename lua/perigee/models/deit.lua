--- DeiT's encoders without distillation (Touvron et al. 2020, arXiv 2012.12877).
local Vit = require("perigee.models.vit").vit

---@class perigee.models
---@field deit_vit_ti_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field deit_vit_s_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field deit_vit_b_16 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}

for size, w in pairs { ti = { 192, 3 }, s = { 384, 6 }, b = { 768, 12 } } do
  local name = ("deit_vit_%s_16"):format(size)
  M[name] = Vit.named(name, { width = w[1], heads = w[2], depth = 12, patch = 16 },
    { stored = 14, mean = Vit.IMAGENET.mean, std = Vit.IMAGENET.std })
end

return M
