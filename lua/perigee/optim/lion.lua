--- Lion (Chen et al. 2023, arXiv 2302.06675): steps by the sign of a moving average of gradients, with decoupled decay
--- and one moment. Its authors use learning rates 3 to 10 times smaller than AdamW's, and as much more decay.
local ops = require "perigee.core.ops"

---@class perigee.LionOptions : perigee.OptimiserOptions
---@field betas? number[]  { 0.9, 0.99 }: of the direction, of the moment
---@field decay? number    0

---@class perigee.optim
---@field lion fun(options?: perigee.LionOptions): perigee.Optimiser

---@type perigee.OptimiserDefinition
return {
  options = {
    betas = { "numbers", { 0.9, 0.99 }, length = 2, least = 0, below = 1 },
    decay = { "number", 0, least = 0 },
  },
  moments = { { name = "moment", saved = "m" } },
  hyper = function(o, rate, ema) return { rate, o.betas[1], o.betas[2], o.decay, o.clip, ema } end,
  record = ops.lion,
}
