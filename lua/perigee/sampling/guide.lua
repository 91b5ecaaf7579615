--- Autoguidance (Karras et al. 2024, arXiv 2406.02507): a worse model, of another run or an earlier checkpoint, whose
--- velocity under the same conditions takes the place of the unconditional one in guidance.
local checkpoint = require "perigee.record.checkpoint"
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core.ffi"
local field = require "perigee.sampling.field"
local files = require "perigee.io.files"
local paths = require "perigee.paths"
local restore = require "perigee.sampling.restore"

local M = {}

--- A digest of a guide's weights, of what is there now.
---@param path string
---@return string
function M.digest(path)
  if not files.exists(path) then core.fail("sample: guide: no run or checkpoint at %s", path) end
  local _, file = checkpoint.open(path)
  return checkpoint.digest(file, "ema.student.")
end

---@class perigee.Guide
---@field recipe perigee.Recipe
---@field executable perigee.Executable
local Guide = {}
Guide.__index = Guide

--- An error unless a guide's student stands where a recipe's does: the same data, path and conditions.
local function expect_like(what, recipe, other, list)
  local a, b = recipe.student, other.student
  if a.channels ~= b.channels or a.size[1] ~= b.size[1] or a.size[2] ~= b.size[2] then
    core.fail("%s: its student makes [%d,%d,%d], the one that is guided [%d,%d,%d]", what, b.channels, b.size[1],
      b.size[2], a.channels, a.size[1], a.size[2])
  end
  local own, theirs = paths.of(recipe:flow_matching().path).name, paths.of(other:flow_matching().path).name
  if own ~= theirs then core.fail("%s: its path is %s, of the one that is guided %s", what, theirs, own) end
  local known = { labels = true }
  for _, condition in ipairs(conditions.of(a)) do known[condition.name] = true end
  for _, condition in ipairs(list) do
    if not known[condition.name] then
      core.fail("%s: its student takes '%s', which the one that is guided does not", what, condition.name)
    end
  end
  if a.classes ~= b.classes then
    core.fail("%s: its student has %s classes, the one that is guided %s", what, tostring(b.classes),
      tostring(a.classes))
  end
end

--- Opens the guide of a recipe's student, a run's folder or a checkpoint, by its moving averages, for batches of
--- `batch`.
---@param recipe perigee.Recipe
---@param path string
---@param batch integer
---@param device? string
---@return perigee.Guide
function M.open(recipe, path, batch, device)
  local what = "sample: guide " .. path
  local other = restore.open(path, { device = device })
  if not other:flow_matching() then core.fail("%s: its recipe trains no student that samples", what) end
  local list = conditions.resolve(other.student, other.data)
  expect_like(what, recipe, other, list)
  return setmetatable({ recipe = other, list = list,
    executable = field.compile(other.student, list, batch, { dtype = other.dtype, device = device }) }, Guide)
end

--- The guide's velocity under given values of the conditions, [B,...] by name: a function (x, t).
---@param values table<string, perigee.Tensor>
function Guide:field(values)
  local other = self.recipe
  local matching = other:flow_matching()
  return field.new(self.executable, other.student, self.list, values, { dtype = other.dtype, path = matching.path,
    prediction = matching.prediction, least_sigma = matching.least_sigma })
end

function Guide:close()
  self.executable:free()
  self.recipe.student:dematerialise()
end

return M
