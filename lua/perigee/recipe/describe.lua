--- A recipe in words and numbers: for lines on the terminal, for config.json, for names of cached results.
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local is_frozen = require("perigee.nn.module").is_frozen
local schedules = require "perigee.schedules"
local signals = require "perigee.signals"
local tables = require "perigee.base.tables"

local M = {}

local function weighted(entry)
  local text = schedules.text(entry.weight)
  return (schedules.is_schedule(entry.weight) and "(%s)·%s" or "%s·%s"):format(text, entry.name)
end

--- The losses of a stage with their weights: "1·denoise + 0.5·features".
---@param stage { losses: { name: string, weight: number|perigee.Schedule }[] }
---@return string
function M.losses(stage)
  local texts = {}
  for k, entry in ipairs(stage.losses) do texts[k] = weighted(entry) end
  return table.concat(texts, " + ")
end

--- A stage of a run in one line.
---@param stage { index: integer, name: string, losses: table[], finish: perigee.Stop }
---@return string
function M.stage(stage)
  return ("stage %d, %s: %s; until %s"):format(stage.index, stage.name, M.losses(stage), stage.finish.text)
end

--- The step at which a recipe ends at the latest, if its stops know one; `live`: the stage that a run is in.
---@param live? { index: integer, finish: perigee.Stop, begun: integer }
---@return integer?
function M.last_step(recipe, live)
  local last = 0
  if live then last = live.finish:latest(live.begun) end
  for k = live and live.index + 1 or 1, #recipe.stages do last = recipe.stages[k].finish:latest(last) end
  return last
end

--- Does stage `index` or a later one train the loss of this name?
---@return boolean
function M.trains(recipe, index, loss)
  for k = index, #recipe.stages do
    for _, entry in ipairs(recipe.stages[k].losses) do
      if entry.name == loss then return true end
    end
  end
  return false
end

--- The numbers, texts, switches and lists of numbers among the fields of a model or a data set.
local function settings_of(thing)
  if not thing then return nil end
  local settings = {}
  for key, value in pairs(thing) do
    local kind = type(value)
    if kind == "number" or kind == "string" or kind == "boolean" then settings[key] = value
    elseif kind == "table" and getmetatable(value) == nil and type(value[1]) == "number" then
      settings[key] = { unpack(value) }
    end
  end
  return settings
end

--- The settings of the only teacher, or nil; of several by their names, or nil.
local function teacher_config(recipe)
  if not recipe.teachers[2] then return recipe.teachers[1] and settings_of(recipe.teachers[1].model), nil end
  local all = {}
  for _, entry in ipairs(recipe.teachers) do all[entry.name] = settings_of(entry.model) end
  return nil, all
end

--- A student's settings, with its inputs where it declares them.
local function student_config(student)
  local settings = settings_of(student)
  if student.inputs then
    settings.inputs = {}
    for k, condition in ipairs(conditions.of(student)) do
      local null = condition.null
      settings.inputs[k] = { name = condition.name, shape = condition.shape, dtype = condition.dtype,
        null = type(null) == "table" and "tensor " .. core.shape_text(null.shape) or null,
        drop = null ~= nil and condition.drop or nil }
    end
    settings.inputs = json.array(settings.inputs)
  end
  return settings
end

local function stage_config(stage)
  local losses, measured = {}, {}
  for k, entry in ipairs(stage.losses) do
    losses[k] = { name = entry.name, weight = schedules.plain(entry.weight), kind = entry.loss.kind,
      settings = entry.loss.settings }
  end
  for k, signal in ipairs(signals.of_stage(stage.finish, stage.signals)) do
    measured[k] = { name = signal.name, kind = signal.kind, settings = signal:named_settings() }
  end
  return { name = stage.name, finish = stage.finish.text, losses = losses, signals = measured[1] and measured or nil }
end

--- The names of a recipe's frozen parameters, or nil.
local function frozen_names(recipe)
  local names = {}
  for _, m in ipairs(recipe:trained_modules()) do
    for _, entry in ipairs(m.module:named_parameters()) do
      if is_frozen(entry.tensor) then names[#names + 1] = m.name .. "." .. entry.name end
    end
  end
  return names[1] and names
end

--- Every setting of a recipe, resolved, for config.json: no weights of models, no clock.
---@param extra? table<string, any>  further fields
---@return table
function M.config(recipe, extra)
  local stages = {}
  for k, stage in ipairs(recipe.stages) do stages[k] = stage_config(stage) end
  local teacher, teachers = teacher_config(recipe)
  return tables.merged({
    name = recipe.name, seed = recipe.seed, precision = recipe.precision, batch = recipe.batch, micro = recipe.micro,
    optim = schedules.plain_all(recipe.optim), ema = schedules.plain(recipe.ema), every = recipe.every,
    sample = recipe.sample, stages = stages,
    student = student_config(recipe.student), teacher = teacher, teachers = teachers,
    data = settings_of(recipe.data), cache_teacher = recipe.cache_teacher or nil, tf32 = recipe.tf32 or nil,
    frozen = frozen_names(recipe),
  }, extra)
end

return M
