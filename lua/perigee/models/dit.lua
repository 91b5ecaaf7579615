--- DiT (Peebles, Xie 2022, arXiv 2212.09748): SiT's transformer with a learned variance, for a diffusion's noise:
--- loss.flow_matching { path = "diffusion", prediction = "noise" } and loss.variational_bound, sampler ddpm.
local Sit = require("perigee.models.sit").sit
local tables = require "perigee.base.tables"

---@class perigee.models
---@field dit fun(options: perigee.SitOptions): perigee.Sit
---@field dit_s_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_s_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_s_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_b_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_b_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_b_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_l_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_l_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_l_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_xl_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_xl_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field dit_xl_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
local M = Sit.all_sizes("dit", { learned_variance = true })

function M.dit(options) return Sit(tables.merged({ learned_variance = true }, options)) end

return M
