--- How a run evaluates its samples by FID's network every `every.eval` steps: a recipe's `evaluation`.
local check = require "perigee.core.check"
local sampling = require "perigee.recipe.sampling"
local tables = require "perigee.base.tables"

--- Settings of samples too: those that are not named are the recipe's `sample`, `count` is 2000.
---@class perigee.EvaluationSettings : perigee.SampleSettings
---@field inception string     weights of FID's network: classify_image_graph_def.pb, or PyTorch's form of them
---@field reference string     what samples are compared with, as for `perigee eval`
---@field convention? "adm"|"pytorch-fid"|"clean-fid"  adm
---@field distances? "float16"|"float32"               float16

local COUNT = 2000

local M = {}

--- Settings in full, checked; `sample` in them is a perigee.SampleSettings. An error names `what`.
---@param what string   "recipe: evaluation"
---@param given perigee.EvaluationSettings
---@param student perigee.Module
---@param sample perigee.SampleSettings  the recipe's, in full
---@param path? perigee.Path
function M.settings(what, given, student, sample, path)
  local rules = {
    inception = { "string", required = true, words = "a file with the weights of FID's network" },
    reference = { "string", required = true, words = "an .npz with the statistics of real pictures, or pictures" },
    convention = { "string", "adm", choices = require("perigee.models.inception").inception.conventions },
    distances = { "string", "float16", choices = { "float16", "float32" } },
  }
  local own, rest = {}, {}
  for key, value in pairs(given) do (rules[key] and own or rest)[key] = value end
  local o = check.options(what, own, rules)
  rest.count = rest.count or COUNT
  o.sample = sampling.settings(what, rest, student, tables.merged(sample), path)
  return o
end

return M
