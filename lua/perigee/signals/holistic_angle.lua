--- The angle between the whole alignment's and the denoising loss's gradients with respect to the parameters of one
--- block, the last one that every alignment loss reaches, over a batch of random training images at times drawn as in
--- training. Both gradients are exact. Besides the angle of each reading there is that of both gradients' running means
--- over readings, in which the noise of single batches cancels before the cosine is taken.
---
--- Its value is { cosine =, averaged =, denoise =, alignment = the norms of this reading's gradients, readings = };
--- where a gradient is zero, `undefined` says which, in place of the cosines. A reading takes about as long as a step
--- of as many images, so one of `micro` images every 100 steps adds 1 % at most.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local probe = require "perigee.stage.gradient_angle"
local tensor = require "perigee.core.tensor"

---@class perigee.HolisticAngleOptions
---@field name? string      "holistic_angle"
---@field block? integer    the last one that every alignment loss reaches
---@field images? integer   of a reading: `micro`, those of one pass
---@field parameters? "all"|"attention"|"mlp"  of the block: all
---@field decay? number     of the running means, a reading: 0.9
---@field ema? boolean      at the moving averages of the weights: false
---@field from? integer     100
---@field every? integer    100

---@class perigee.signals
---@field holistic_angle fun(options?: perigee.HolisticAngleOptions): perigee.Signal

local SIDES = { "denoise", "alignment" }

--- The last block that every alignment loss of a stage reaches.
local function last_aligned(stage)
  local last
  for _, entry in ipairs(stage.losses) do
    local reach = entry.loss.needs_teacher and entry.loss.settings.block
    for _, pair in ipairs(entry.loss.pairs or {}) do reach = math.max(reach or 0, pair.student) end
    if type(reach) == "number" then last = math.min(last or reach, reach) end
  end
  return last
end

local function block_of(signal, stage)
  return signal.settings.block or last_aligned(stage) or core.fail(
    "signal.holistic_angle: the stage '%s' has no alignment loss that names a block; give `block`", stage.name)
end

local function options_of(signal, stage)
  local o = signal.settings
  return { blocks = { block_of(signal, stage) }, parameters = o.parameters, drawn = true, ema = o.ema }
end

--- Brings the running means up to date: the first reading is the mean of itself.
local function average(state, part, decay)
  for _, side in ipairs(SIDES) do
    tensor.tidy(function()
      local now = part[side].sum:to "float32"
      if state[side] then state[side]:copy_(state[side] * decay + now * (1 - decay))
      else state[side] = tensor.outlive(now.clone, now) end
    end)
  end
end

local function zero_side(reading)
  return ("the gradient of %s is zero"):format(reading.denoise == 0 and "denoising" or "the alignment")
end

local function measure(self, run, state)
  local o, value = self.settings, {}
  state = state or { readings = 0 }
  state.held = not o.ema and state.held or nil -- averages are copied when a probe is built
  state.readings = state.readings + 1
  state.held = probe.with(run, options_of(self, run.stage), o.images or run.micro, function(built, batches, batch)
    local reading = built:measure(batches, batch(run:bind_weights { state = run.random_state }))[1]
    average(state, built.parts[1], o.decay)
    value.denoise, value.alignment, value.readings = reading.denoise, reading.alignment, state.readings
    value.cosine, value.averaged = reading.cosine, (probe.cosine(state.alignment, state.denoise))
    if not value.cosine then value.averaged, value.undefined = nil, zero_side(reading) end
  end, { held = state.held, keep = not o.ema })
  return value, state
end

local function price(members, run)
  local signal = members[1]
  local o = signal.settings
  local cost = probe.price(run, options_of(signal, run.stage), o.ema and run.averages or 0)
  cost.batches = math.ceil((o.images or run.micro) / run.micro)
  return cost
end

---@param options? perigee.HolisticAngleOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.holistic_angle", options or {}, {
    name = { "string", "holistic_angle" }, block = { "count" }, images = { "count" },
    parameters = { "string", "all", choices = { "all", "attention", "mlp" } }, decay = { "fraction", 0.9 },
    ema = { "boolean", false }, from = { "natural", 100 }, every = { "count", 100 },
  })
  return {
    name = o.name, settings = o, holds = not o.ema, measure = measure, price = price,
    key = ("holistic_angle %s %s %s %g%s %d %d"):format(o.block or "", o.images or "", o.parameters, o.decay,
      o.ema and " ema" or "", o.from, o.every),
    check = function(self, stage, recipe) probe.check(stage, recipe.student, block_of(self, stage)) end,
  }
end
