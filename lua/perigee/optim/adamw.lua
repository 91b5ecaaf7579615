--- AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decoupled decay, clipping by the global gradient norm, linear
--- warm-up over `warmup` steps, and, if asked, a linear cool-down to zero over the steps cooldown = { first, last }.
local ops = require "perigee.core.ops"

---@class perigee.AdamwOptions : perigee.OptimiserOptions
---@field betas? number[]     { 0.9, 0.999 }
---@field epsilon? number     1e-8
---@field decay? number       0

---@class perigee.optim
---@field adamw fun(options?: perigee.AdamwOptions): perigee.Optimiser

---@type perigee.OptimiserDefinition
return {
  options = {
    betas = { "numbers", { 0.9, 0.999 }, length = 2, least = 0, below = 1 },
    epsilon = { "number", 1e-8, above = 0 },
    decay = { "number", 0, least = 0 },
  },
  moments = { { name = "first_moment", saved = "m" }, { name = "second_moment", saved = "v" } },
  hyper = function(o, rate, ema, step)
    return { rate, o.betas[1], o.betas[2], o.epsilon, o.decay, o.clip, ema, step }
  end,
  record = ops.adamw,
}
