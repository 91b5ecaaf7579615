local ops = require "perigee.core.ops"
local updates = require "tests.lua.update_cases"

local function settings_of(lr, beta2, decay, clip, ema)
  return { lr = lr, beta1 = 0.9, beta2 = beta2, decay = decay, clip = clip, ema = ema }
end

return updates.cases {
  name = "lion",
  moments = { "moment" },
  settings = {
    ["clipped, with decay"] = settings_of(1e-2, 0.95, 0.1, 1, 0.9),
    ["without decay"] = settings_of(1e-4, 0.99, 0, 1e6, 0.9999),
    ["without a clip"] = settings_of(1e-3, 0.99, 0, 0, 0.5),
  },
  hyper = function(h) return { h.lr, h.beta1, h.beta2, h.decay, h.clip, h.ema } end,
  step = function(s, h)
    local g = updates.clipped(s.gradient, h.clip)
    local p = s.parameters * (1 - h.lr * h.decay) - ops.sign(s.moment * h.beta1 + g * (1 - h.beta1)) * h.lr
    return { parameters = p, moment = s.moment * h.beta2 + g * (1 - h.beta2),
      average = s.average + (p - s.average) * (1 - h.ema) }
  end,
}
