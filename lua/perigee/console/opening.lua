--- What a REPL opens: a recipe, whose run begins at step 0, or a run's folder or checkpoint, whose run stands where
--- that stood, with its trained tensors. The run is in memory: nothing is written.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local Progress = require "perigee.record.progress"
local recipes = require "perigee.recipe"
local resume = require "perigee.train.resume"
local Run = require "perigee.train.run"
local teachers = require "perigee.teacher"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.OpeningOptions
---@field values? table<string, any>  options of a recipe
---@field device? string              default: the recipe's
---@field ema? boolean                false: a run's weights themselves, not their moving averages

--- Is it a run's folder or a checkpoint, and no recipe?
function M.is_run(path) return files.kind(path) == "directory" or path:match "%.safetensors$" ~= nil end

local function recipe_of(path, options)
  if M.is_run(path) then
    if next(options.values or {}) then
      error(("--set: %s is a run, its recipe's options are those that it was trained with"):format(path), 0)
    end
    return require("perigee.sampling.restore").recipe(path)
  end
  local recipe = require("perigee.recipe.load").load(path, { values = options.values }).value
  if recipes.is_recipe(recipe) then return recipe, false end
  error(("%s returns no recipe: its last line should be `return pg.recipe { ... }`"):format(path), 0)
end

--- Makes the teachers' models ready in a stage that doesn't need them too, unless one would have to be trained for
--- that.
function M.provide_teacher(inner)
  for _, entry in ipairs(inner.recipe.teachers) do
    local what = inner.recipe.teachers[2] and "teacher " .. entry.name or "teacher"
    if recipes.is_recipe(entry.source) and not inner.teacher.ready[entry] and not teachers.trained(entry.source) then
      inner.progress:line("note: the %s is not at hand: it was not trained here; run:enter %q would train it", what,
        inner.recipe.stages[1].name)
    else
      local fine, message = pcall(tensor.outlive, inner.teacher.materialise, inner.teacher, entry)
      if not fine then inner.progress:line("note: the %s is not at hand: %s", what, tostring(message)) end
    end
  end
end

--- The averages take the place of the weights: what is computed from now on, and what is trained, begins with them.
local function use_averages(inner)
  for _, group in ipairs(inner.groups) do
    group.parameters:copy_(group.average)
    group:refresh()
  end
end

--- Opens it, on a device. `folder` is that of a run, `source` says which tensors are at hand.
---@param path string
---@param options perigee.OpeningOptions
---@return { recipe: perigee.Recipe, inner: perigee.Run, folder: string|false, source: string|nil }
function M.open(path, options)
  local recipe, folder = recipe_of(path, options)
  recipe.cache_teacher = false -- here the teacher itself is at hand, and its results are the same
  return tensor.outlive(function()
    local source
    local inner = Run.new(recipe, {
      device = options.device or recipe.device, train = require("perigee.train").train,
      choices = folder and resume.choices { from = path } or nil,
      progress = Progress.new { clock = core.C.pg_clock_seconds },
    })
    if folder then
      local checkpoint = resume.take_over(inner, path)
      if options.ema ~= false then use_averages(inner) end
      source = ("the %s of %s"):format(options.ema == false and "weights" or "moving averages", checkpoint)
    end
    inner:build_stage()
    M.provide_teacher(inner)
    return { recipe = recipe, inner = inner, folder = folder, source = source }
  end)
end

return M
