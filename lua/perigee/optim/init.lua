--- Optimisers: pg.optim.NAME { ... } returns settings that are checked once. lua/perigee/optim/NAME.lua says what the
--- optimiser keeps and what makes its step; buffers, checkpoints, prices, consoles and the update follow from that.
--- Settings that may change while a run is going are copied into the run; every step's update reads them as an input of
--- the program.
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"
local schedules = require "perigee.schedules"
local tables = require "perigee.base.tables"

--- The fields that an optimiser's file returns.
---@class perigee.OptimiserDefinition
---@field options table<string, table>  its own settings: name -> rule of core/check.lua
---@field moments { name: string, saved: string }[]  flat buffers like the parameters', zero at first: their names among
---  the fields of `record`, and in checkpoints ("optimizer.SAVED.")
---@field hyper fun(o: perigee.Optimiser, rate: number, ema: number, step: integer): number[]  the numbers that the op
---  reads, in its order; step counts from 1
---@field record fun(fields: table<string, perigee.Value>)  records the step of a group in place: parameters, gradient,
---  each moment, average, working (where there is one), hyper, square_sum (of all gradients)

--- Settings that every optimiser has.
---@class perigee.OptimiserOptions
---@field lr? number|perigee.Schedule  1e-4
---@field clip? number        1: bound of the norm of the whole gradient; 0: no clipping
---@field warmup? integer     0: steps over which the rate rises linearly
---@field cooldown? number[]  { first step, last step }: over which it falls linearly to zero

---@class perigee.Optimiser : perigee.OptimiserOptions
---@field kind string  the name of its file
---@field [string] any

---@class perigee.optim
local M = {}

local COMMON = {
  lr = { "number", 1e-4, least = 0,
    instead = "for a rate that changes, set warmup, or write pg.schedule.cosine { ... }" },
  clip = { "number", 1, least = 0 }, warmup = { "natural", 0 },
  cooldown = { "numbers", nil, length = 2, fixed = true }, -- fixed: not to be changed while a run is going
}

local definitions = {} -- by name, of those that are loaded
local made = setmetatable({}, { __mode = "k" }) -- settings that a constructor returned

local function rules_of(definition) return tables.merged(COMMON, definition.options) end

--- The constructor of an optimiser.
local function constructor(name, definition)
  definitions[name] = definition
  return function(options)
    local what = "optim." .. name
    local o = schedules.options(what, options or {}, rules_of(definition), "lr")
    if o.cooldown and o.cooldown[1] > o.cooldown[2] then
      core.fail("%s: cooldown is { %g, %g }; expected { first step, last step }", what, o.cooldown[1], o.cooldown[2])
    end
    o.kind, made[o] = name, true
    return o
  end
end

--- Whether x is what a constructor returned.
function M.is_optimiser(x) return made[x] == true end

--- The definition of settings, or of a copy of them.
---@param settings perigee.Optimiser
---@return perigee.OptimiserDefinition
function M.definition(settings)
  if not definitions[settings.kind] then local _ = M[settings.kind] end -- loads it
  return definitions[settings.kind]
end

--- Settings that may change during a run: name -> rule of core/check.lua.
---@param settings perigee.Optimiser
---@return table<string, table>
function M.changeable(settings)
  local rules = rules_of(M.definition(settings))
  for name, rule in pairs(rules) do
    if rule.fixed then rules[name] = nil end
  end
  return rules
end

--- Settings in a line: "adamw, betas 0.9 0.999, clip 1, ...".
---@param settings perigee.Optimiser
---@return string
function M.describe(settings)
  local parts = { settings.kind }
  for _, name in ipairs(tables.sorted_keys(rules_of(M.definition(settings)))) do
    local value = settings[name]
    if value ~= nil then
      local is_list = type(value) == "table" and not schedules.is_schedule(value)
      parts[#parts + 1] = name .. " " .. (is_list and table.concat(value, " ") or tostring(value))
    end
  end
  return table.concat(parts, ", ")
end

--- The learning rate of a step (counted from 1): warm-up lr·min(1, step/warmup), then lr, then the cool-down; where lr
--- is a schedule, its value at the step takes its place.
---@param settings perigee.Optimiser
---@param step integer
---@return number
function M.rate(settings, step)
  local rate = schedules.value(settings.lr, step)
  if settings.warmup > 0 then rate = rate * math.min(1, step / settings.warmup) end
  if settings.cooldown then
    local first, last = settings.cooldown[1], settings.cooldown[2]
    rate = rate * math.max(0, math.min(1, (last + 1 - step) / (last + 1 - first)))
  end
  return rate
end

--- The numbers that the update of a step reads (counted from 1), in the order of the optimiser's op.
---@param settings perigee.Optimiser
---@param ema number  decay of the moving averages
---@param step integer
---@return number[]
function M.hyper(settings, ema, step)
  return M.definition(settings).hyper(settings, M.rate(settings, step), ema, step)
end

return room.open({ module = "perigee.optim", what = "optimiser", make = constructor }, M)
