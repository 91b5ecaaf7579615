--- A trained student out of a run's folder or a checkpoint, ready to sample: by its moving averages unless told otherwise.
local checkpoint = require "perigee.train.checkpoint"
local json = require "perigee.io.json"
local lfs = require "lfs"

local M = {}

--- The recipe of a run, as it was, and the run's folder. `path` is the folder or one of its checkpoints.
function M.recipe(path)
  local mode = lfs.attributes(path, "mode")
  if not mode then error(("there is no run or checkpoint %s"):format(path), 0) end
  local folder = path
  if mode ~= "directory" then folder = path:match "^(.*)/checkpoints/[^/]+$" or path:match "^checkpoints/" and "." end
  if not folder or not lfs.attributes(folder .. "/recipe.lua", "mode") then
    error(("%s lies in no run's folder: recipe.lua is missing beside checkpoints/"):format(path), 0)
  end
  local config = json.read(folder .. "/config.json")
  local load = require("perigee.recipe_options").load(folder .. "/recipe.lua", { values = config.options or {} })
  return load.value, folder
end

--- Returns the recipe, the checkpoint's state, and the path of the checkpoint. The student is materialised.
---@param options? { ema?: boolean, device?: string }
function M.open(path, options)
  options = options or {}
  local recipe = M.recipe(path)
  local state, _, found = checkpoint.open(path)
  local prefix = options.ema == false and "student." or "ema.student."
  require("perigee.train.teacher").load_model(recipe.student, found, prefix,
    { dtype = recipe.dtype, device = options.device or "cpu", purpose = "parameters" })
  return recipe, state, found
end

return M
