--- Samples of a run that is under way.
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core.ffi"
local field = require "perigee.sampling.field"
local files = require "perigee.io.files"
local generate = require "perigee.sampling.generate"
local grid = require "perigee.sampling.grid"
local npy = require "perigee.io.npy"
local png = require "perigee.io.png"
local sampling = require "perigee.recipe.sampling"
local values = require "perigee.sampling.values"

local M = {}

--- Whether a recipe's student can be sampled: it is trained by flow matching and says how large its pictures are.
function M.is_possible(recipe)
  return recipe:flow_matching() ~= nil and recipe.student.channels ~= nil and recipe.student.size ~= nil
end

--- Traces what the preview will compute, so that an error comes before the training and not after it.
function M.check(recipe)
  if not M.is_possible(recipe) then return end
  recipe:validate()
  core.at(recipe.place, generate.form, recipe)
  recipe.student:assume_dtype(recipe.dtype)
  local list = conditions.resolve(recipe.student, recipe.data)
  core.at(recipe.place, field.trace, recipe.student, list, math.min(recipe.sample.count, 64), recipe.dtype)
  core.at(recipe.place, values.check, "recipe: sample", recipe, list, recipe.sample)
end

--- Draws samples with the moving averages, as the recipe's `sample` says where `given` doesn't, and writes them to the
--- run's folder, as a grid or, of latents, as an array [n,C,H,W]: what `perigee sample` draws from a checkpoint of this
--- step.
---@param run perigee.Run
---@param given? perigee.SampleSettings
---@return string path
function M.save(run, given)
  local recipe = run.recipe
  local settings = sampling.settings("sample", given or {}, recipe.student, recipe.sample, recipe:path())
  local form = generate.form(recipe)
  local path = ("%s/samples/step-%07d.%s"):format(run.folder, run.step, form.pixels and "png" or "npy")
  if form.pixels then grid.check(path, settings.count, form.shape) end
  local images = generate.all(recipe, settings, { captures = (run.groups[1]:averages()), device = run.device })
  files.make_folder(run.folder .. "/samples")
  if form.pixels then png.save(path, grid.join(images)) else npy.save(path, images) end
  run:log { event = "sample", step = run.step, file = path:match "[^/]+$" }
  return path
end

return M
