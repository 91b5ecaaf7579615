--- A trained student out of a run's folder or a checkpoint, ready to sample: by its moving averages unless told
--- otherwise.
local checkpoint = require "perigee.record.checkpoint"
local choices = require "perigee.record.choices"
local config = require "perigee.record.config"
local device = require "perigee.core.device"
local lfs = require "lfs"
local owner = require "perigee.io.owner"

local M = {}

--- The recipe of a run, as it was, and the run's folder. `path` is the folder or one of its checkpoints.
function M.recipe(path)
  local mode = lfs.attributes(path, "mode")
  if not mode then error(("no run or checkpoint at %s"):format(path), 0) end
  local folder = path
  if mode ~= "directory" then folder = path:match "^(.*)/checkpoints/[^/]+$" or path:match "^checkpoints/" and "." end
  if not folder or not lfs.attributes(folder .. "/recipe.lua", "mode") then
    error((mode == "directory" and "%s is not a run: recipe.lua is missing" or "%s is not a run's checkpoint; expected "
      .. "RUN/checkpoints/step-N.safetensors, with RUN/recipe.lua"):format(path), 0)
  end
  local values = config.read(folder).options or {}
  owner.tell(folder .. "/recipe.lua")
  local load = require("perigee.recipe.load").load(folder .. "/recipe.lua", { values = values })
  return load.value, folder
end

--- Returns the recipe, the checkpoint's state, its path, and a digest of the weights. The student is materialised; on
--- a GPU the checkpoint's choices of algorithms are taken over, and those that were made on this machine.
---@param options? { ema?: boolean, device?: string }
function M.open(path, options)
  options = options or {}
  local recipe, teacher, where = M.recipe(path), require "perigee.teacher", options.device or "cpu"
  device.expect_dtype(where, recipe.dtype)
  local state, file, found = checkpoint.open(path)
  if where ~= "cpu" then
    choices.recall(teacher.choices_path())
    choices.take(state.choices)
  end
  local prefix = options.ema == false and "student." or "ema.student."
  teacher.load_model(recipe.student, found, prefix, { dtype = recipe.dtype, device = where, purpose = "parameters" })
  return recipe, state, found, checkpoint.digest(file, prefix)
end

--- Keeps the choices of algorithms that were made since, for the next time.
function M.keep_choices()
  choices.save(require("perigee.teacher").choices_path())
end

return M
