--- The norms of gradients by loss and by block: { block = { 1, 2, ... }, denoise = { one a block }, features = ..., },
--- the alignment losses weighted as in the step. Over random training images at times drawn as in training.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local probe = require "perigee.stage.gradient_angle"

---@class perigee.GradientNormsOptions
---@field name? string       "gradient_norms"
---@field blocks? integer[]  all
---@field images? integer    `micro`, those of one pass
---@field from? integer      500
---@field every? integer     500

---@class perigee.signals
---@field gradient_norms fun(options?: perigee.GradientNormsOptions): perigee.Signal

local function options_of(signal, student)
  local blocks = signal.settings.blocks
  if not blocks then
    blocks = {}
    for k = 1, student.blocks and student.depth or 0 do blocks[k] = k end
  end
  return { blocks = blocks, drawn = true, each = true }
end

local function batches(signal, run) return math.ceil((signal.settings.images or run.micro) / run.micro) end

local function measure(self, run)
  local options = options_of(self, run.recipe.student)
  local value = { block = options.blocks }
  probe.with(run, options, batches(self, run) * run.micro, function(built, count, batch)
    built:sum(count, batch(run:bind_weights { state = run.random_state }))
    for _, name in ipairs(built.names) do
      value[name] = {}
      for k, part in ipairs(built.parts) do value[name][k] = probe.norm(part[name].sum) / count end
    end
  end)
  return value
end

---@param options? perigee.GradientNormsOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.gradient_norms", options or {}, {
    name = { "string", "gradient_norms" }, blocks = { "counts" }, images = { "count" }, from = { "natural", 500 },
    every = { "count", 500 },
  })
  if o.blocks and #o.blocks == 0 then core.fail "signal.gradient_norms: blocks lists no blocks" end
  return {
    name = o.name, settings = o, measure = measure,
    key = ("gradient_norms %s %s %d %d"):format(table.concat(o.blocks or {}, ","), o.images or "", o.from, o.every),
    check = function(self, stage, recipe)
      for _, block in ipairs(options_of(self, recipe.student).blocks) do
        probe.check_block("gradient_norms", recipe.student, block)
      end
      for _, entry in ipairs(stage.losses) do
        if entry.loss.is_denoising then return end
      end
      core.fail("gradient_norms: the stage '%s' has no denoising loss", stage.name)
    end,
    price = function(members, run)
      local cost = probe.price(run, options_of(members[1], run.recipe.student), 0)
      cost.batches = batches(members[1], run)
      return cost
    end,
  }
end
