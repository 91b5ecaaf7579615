--- The angle between the feature loss's and the denoising loss's gradients at the aligned block's output, measured in
--- the training step itself: per sample of every step, by noise level. Its value is over the steps since the last
--- reading: { mean =, error =, count =, bins = { { from =, to =, count =, mean =, error = }, one a bin of t } }. A bin
--- that saw no sample has no mean. Samples at which one of the gradients is zero have no angle: `undefined` counts
--- them.
local bins = require "perigee.base.bins"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local fork = require "perigee.stage.fork"
local ops = require "perigee.core.ops"

---@class perigee.StreamAngleSignalOptions
---@field name? string    "stream_angle"
---@field block? integer  at whose output; the one that the feature loss reads
---@field bins? integer   of noise levels: 8
---@field from? integer   0
---@field every? integer  steps between readings, which one is over: 50

---@class perigee.signals
---@field stream_angle fun(options?: perigee.StreamAngleSignalOptions): perigee.Signal

--- Per sample the gradients' products: [B,3].
local function record(self, trace)
  local branch, rest = fork.gradients(trace, self.settings.block)
  local _, products = ops.gradient_fork(rest, branch)
  return products
end

--- Adds a step's cosines.
local function absorb(self, state, numbers, times)
  state = state or { bins = bins.new(self.settings.bins), undefined = 0 }
  for k, t in ipairs(times) do
    local ab, rest, branch = numbers[3 * k - 2], numbers[3 * k - 1], numbers[3 * k]
    if rest > 0 and branch > 0 then
      bins.add(state.bins, t, math.max(-1, math.min(1, ab / math.sqrt(rest) / math.sqrt(branch))))
    else state.undefined = state.undefined + 1 end
  end
  return state
end

local function measure(self, _, state)
  state = state or { bins = bins.new(self.settings.bins), undefined = 0 }
  local each, all = bins.summaries(state.bins)
  all.bins, all.undefined = each, state.undefined > 0 and state.undefined or nil
  return all, { bins = bins.new(self.settings.bins), undefined = 0 }
end

---@param options? perigee.StreamAngleSignalOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.stream_angle", options or {}, {
    name = { "string", "stream_angle" }, block = { "count" }, bins = { "count", 8 }, from = { "natural", 0 },
    every = { "count", 50 },
  })
  if o.bins > 64 then core.fail("signal.stream_angle: %d bins; the most are 64", o.bins) end
  return {
    name = o.name, settings = o, of_step = true,
    key = ("stream_angle %s %d %d %d"):format(o.block or "", o.bins, o.from, o.every),
    stream = {
      fork = function(_, stage) return fork.tap(stage, o.block) end, record = record, absorb = absorb,
    },
    check = function(_, stage, recipe) fork.check("signal.stream_angle", stage, recipe.student, o.block) end,
    measure = measure,
  }
end
