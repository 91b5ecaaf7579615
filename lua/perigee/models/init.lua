--- Models, by the names that recipes use.
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"

---@class perigee.models
---@field sit fun(options: perigee.SitOptions): perigee.Sit
---@field sit_s_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_s_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_s_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field vit fun(options: perigee.VitOptions): perigee.Vit
---@field vit_tiny_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_small_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_base_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_large_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov2_vit_s_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov2_vit_b_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov2_vit_l_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field dinov2_vit_g_14 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = {}
for _, family in ipairs { require "perigee.models.sit", require "perigee.models.vit" } do
  for name, constructor in pairs(family) do M[name] = constructor end
end
return setmetatable(M, { __index = function(_, name)
  local names = {}
  for key in pairs(M) do names[#names + 1] = key end
  core.fail("there is no model '%s'%s", tostring(name), nearest.hint(tostring(name), names))
end })
