--- The angle between the alignment's and the denoising loss's gradients with respect to a block's parameters: see
--- stage/gradient_angle.lua. `ema`: at the moving averages of the weights. Its value is { mean =, cosine = { one a time
--- }, time = {...}, images = }, or, where a gradient is zero, `undefined` in place of mean and cosine. `each` adds the
--- same of each alignment loss by itself, `by` name. Those that differ in their block alone are measured in one pass,
--- at the price of the deepest.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local probe = require "perigee.stage.gradient_angle"

---@class perigee.GradientAngleSignalOptions
---@field name? string       "gradient_angle"
---@field block? integer     5
---@field time? number[]     { 0.02, 0.1, 0.5, 0.8 }
---@field images? integer    2048
---@field from? integer      50000
---@field every? integer     10000
---@field ema? boolean       false
---@field parameters? "all"|"attention"|"mlp"  of the block: all
---@field each? boolean      each alignment loss by itself too: false

---@class perigee.signals
---@field gradient_angle fun(options?: perigee.GradientAngleSignalOptions): perigee.Signal

local function blocks_of(members)
  local blocks = {}
  for k, signal in ipairs(members) do blocks[k] = signal.settings.block end
  return blocks
end

local function measure(members, run) return probe.measure(run, blocks_of(members), members[1].settings) end

local function price(members, run)
  local settings = members[1].settings
  local options = { blocks = blocks_of(members), parameters = settings.parameters, each = settings.each }
  local cost = probe.price(run, options, settings.ema and run.averages or 0)
  cost.batches = #settings.time * math.ceil(settings.images / run.micro)
  return cost
end

---@param options? perigee.GradientAngleSignalOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.gradient_angle", options or {}, {
    name = { "string", "gradient_angle" },
    block = { "count", 5 }, time = { "numbers", { 0.02, 0.1, 0.5, 0.8 }, least = 0, most = 1 },
    images = { "count", 2048 }, from = { "natural", 50000 }, every = { "count", 10000 },
    ema = { "boolean", false }, parameters = { "string", "all", choices = { "all", "attention", "mlp" } },
    each = { "boolean", false },
  })
  if #o.time == 0 then core.fail "signal.gradient_angle: time lists no times" end
  local measured = ("%s %d%s%s%s"):format(table.concat(o.time, "/"), o.images, o.ema and " ema" or "",
    o.parameters ~= "all" and " " .. o.parameters or "", o.each and " each" or "")
  return {
    name = o.name, settings = o, key = ("gradient_angle %d %s %d %d"):format(o.block, measured, o.from, o.every),
    family = "gradient_angle " .. measured, measure_family = measure, price = price,
    check = function(_, stage, recipe) probe.check(stage, recipe.student, o.block) end,
    measure = function(self, run) return measure({ self }, run)[1] end,
  }
end
