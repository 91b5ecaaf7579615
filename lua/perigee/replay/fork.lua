--- Forks of a run: the same recipe from one of its checkpoints on, with the alignment dropped after a step, or kept to
--- the end. Data and noise depend on seed and step alone, so two forks differ in their losses and in nothing else.
local checkpoint = require "perigee.record.checkpoint"
local stops = require "perigee.stops"
local tables = require "perigee.base.tables"

local M = {}

local FREE = "free" -- the name of a stage that the recipe does not have

--- The first stage that aligns, or nil.
local function aligned(stages)
  for _, stage in ipairs(stages) do
    if stage.needs_teacher then return stage end
  end
end

--- A stage of the losses that need no teacher.
local function freed(stage, finish)
  local losses = {}
  for _, entry in ipairs(stage.losses) do
    if not entry.loss.needs_teacher then losses[#losses + 1] = entry end
  end
  if #losses == 0 then error(("stage '%s' has alignment losses alone: nothing would be left"):format(stage.name), 0) end
  return { name = stage.name == FREE and "free of alignment" or FREE, losses = losses, finish = finish, signals = {},
    needs_teacher = false }
end

---@class perigee.Fork
---@field at integer       the step after which the alignment ends, or from which it is kept
---@field keep boolean
---@field last integer     the step at which the fork ends

--- The recipe of a fork: its stages up to the first that aligns; that one, to step `at` or to the end; and if it is
--- dropped, what follows, to the end.
---@param recipe perigee.Recipe
---@param fork perigee.Fork
---@return perigee.Recipe
function M.recipe(recipe, fork)
  local align = aligned(recipe.stages)
  if not align then error(("recipe %s has no stage that aligns"):format(recipe.name), 0) end
  local stages = {}
  for k = 1, align.index - 1 do stages[k] = recipe.stages[k] end
  local finish = stops.at_step(fork.keep and fork.last or fork.at)
  stages[align.index] = tables.merged(align, { finish = finish })
  if not fork.keep then
    for k = align.index + 1, #recipe.stages do
      if not recipe.stages[k].needs_teacher then stages[#stages + 1] = recipe.stages[k] end
    end
    if #stages == align.index then stages[#stages + 1] = freed(align) end
    stages[#stages] = tables.merged(stages[#stages], { finish = stops.at_step(fork.last) })
  end
  for k = align.index, #stages do stages[k].index = k end
  return setmetatable(tables.merged(recipe, { stages = stages }), getmetatable(recipe))
end

--- A recorded run's first stage that aligns.
---@param recipe perigee.Recipe
---@param recorded perigee.Recorded
---@return perigee.ReplayedStage
function M.stage(recipe, recorded)
  local align = aligned(recipe.stages)
  if not align then error(("recipe %s has no stage that aligns"):format(recipe.name), 0) end
  return recorded:stage(align.name)
end

--- The step that a word names: a number, or "decision": where the run's alignment ended.
---@param word string
---@param stage perigee.ReplayedStage
---@return integer
function M.step(word, stage)
  local step = tonumber(word)
  if step then
    if step % 1 ~= 0 or step < 1 then error(("--at %s: expected a step, 1 or more, or 'decision'"):format(word), 0) end
    if step <= stage.from or step > (stage.to or math.huge) then
      error(("--at %s: the stage '%s' went from step %d%s; expected %d or later%s"):format(word, stage.name, stage.from,
        stage.to and (" to %d"):format(stage.to) or " on", stage.from + 1,
        stage.to and (", and %d at most"):format(stage.to) or ""), 0)
    end
    return step
  end
  if word ~= "decision" then error(("--at %s: expected a step or 'decision'"):format(word), 0) end
  if not stage.to then
    error(("--at decision: the stage '%s' has not ended; name a step"):format(stage.name), 0)
  end
  return stage.to
end

--- The newest checkpoint of a run at or before a step, in the stage that aligns: its path and its step.
---@param path string  the run's folder
---@param step integer
---@param stage perigee.ReplayedStage
---@return string, integer
function M.checkpoint(path, step, stage)
  if step == stage.to then step = step - 1 end -- a checkpoint of that step is in the next stage
  local steps, found = checkpoint.list(path), nil
  for _, one in ipairs(steps) do
    if one <= step then found = one end
  end
  if found then return checkpoint.path(path, found), found end
  error(("%s has no checkpoint at or before step %d; %s. `every = { checkpoint = STEPS }` and `keep` in its recipe say "
    .. "which there are"):format(path, step, steps[1] and ("its first is that of step %d"):format(steps[1])
    or "it has none at all"), 0)
end

return M
