--- The paper's trigger (HASTE, arXiv 2505.16792, review thread): the cosine between the gradients of the alignment
--- losses and of the denoising loss with respect to the parameters of block `block` (from 1), at each of `time` over
--- `images` random training images, every `every` steps from step `from` on; ends the stage when the mean over the
--- times is below `below`. `patience` readings in a row must be (1, the paper's, unless told otherwise). `ema`: at the
--- moving averages of the weights, where readings are steadier.
local check = require "perigee.core.check"
local signals = require "perigee.signals"

---@class perigee.GradientAngleOptions
---@field block? integer     5
---@field time? number[]     { 0.02, 0.1, 0.5, 0.8 }
---@field images? integer    2048
---@field from? integer      50000
---@field every? integer     10000
---@field below? number      -0.05
---@field patience? integer  1
---@field ema? boolean       false
---@field parameters? "all"|"attention"|"mlp"  of the block: all

---@class perigee.stops
---@field gradient_angle fun(options?: perigee.GradientAngleOptions): perigee.Stop

---@param options? perigee.GradientAngleOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.gradient_angle", options or {}, {
    block = { "count", 5 }, time = { "numbers", { 0.02, 0.1, 0.5, 0.8 }, least = 0, most = 1 },
    images = { "count", 2048 }, from = { "natural", 50000 }, every = { "count", 10000 },
    below = { "number", -0.05 }, patience = { "count", 1 }, ema = { "boolean", false },
    parameters = { "string", "all", choices = { "all", "attention", "mlp" } },
  })
  local signal = signals.gradient_angle {
    block = o.block, time = o.time, images = o.images, from = o.from, every = o.every, ema = o.ema,
    parameters = o.parameters,
  }
  return {
    arguments = { o }, needs = { signal },
    text = ("gradient_angle(block %d, below %g)"):format(o.block, o.below),
    first = function() return { below = 0 } end,
    decide = function(_, event, state)
      local reading = event[signal.name]
      local mean = reading
      if type(reading) == "table" then mean = reading.mean end
      if mean == nil then return false, state end -- not due, or undefined
      local count = mean < o.below and state.below + 1 or 0
      local reason = count >= o.patience and ("gradient angle %.4f is below %g"):format(mean, o.below) or nil
      return reason ~= nil, { below = count }, reason
    end,
  }
end
