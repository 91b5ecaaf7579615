--- Evaluations while a run trains: its samples, drawn with the moving averages, by FID's network, as the recipe's
--- `evaluation` says. The result is an event "evaluation" of the run's log, which stop.metric and signal.metric read.
local core = require "perigee.core.ffi"
local feature_network = require "perigee.metrics.feature_network"
local files = require "perigee.io.files"
local five_numbers = require "perigee.metrics.five_numbers"
local generate = require "perigee.sampling.generate"
local reference = require "perigee.metrics.reference"
local run_source = require "perigee.metrics.run_source"
local sampling = require "perigee.recipe.sampling"
local tensor = require "perigee.core.tensor"

local M = {}

--- Errors that can be seen before the training: files that are missing, samples that are no pictures.
---@param recipe perigee.Recipe
function M.check(recipe)
  local settings = recipe.evaluation
  if not settings or recipe.every.eval == 0 then return end
  for _, key in ipairs { "inception", "reference" } do
    if not files.exists(settings[key]) then
      core.at(recipe.place, core.fail, "recipe: evaluation: %s: no file %s", key, settings[key])
    end
  end
  if not generate.form(recipe).pixels then
    core.at(recipe.place, core.fail, "recipe: evaluation: the samples are latents; expected `decode`, an autoencoder")
  end
end

local opened = setmetatable({}, { __mode = "k" }) -- run -> its network and reference, which stay

local function tools_of(run)
  if not opened[run] then
    local settings = run.recipe.evaluation
    local network = feature_network.inception(settings.inception,
      { convention = settings.convention, device = run.device })
    opened[run] = { network = network, reference = reference.open(network, settings.reference) }
  end
  return opened[run]
end

--- Evaluates the run where it stands, and logs it.
---@param run perigee.Run
---@return table event
function M.evaluate(run)
  local settings, tools = run.recipe.evaluation, tensor.outlive(tools_of, run)
  local source = run_source.of(run.recipe, settings.sample, { name = run.recipe.name, weights = "of a run",
    captures = (run.groups[1]:averages()), device = run.device })
  local set = tools.network:features(source, nil, run.folder .. "/evaluation.npz")
  local event = five_numbers.compare(tools.network, set, tools.reference, { half = settings.distances == "float16" })
  files.remove(set.path)
  event.event, event.step, event.name = "evaluation", run.step, tools.network.name
  event.against, event.distances = tools.reference.name, event.precision and settings.distances or nil
  event.samples = ("%d: %s"):format(event.count, sampling.describe(settings.sample))
  run:log(event)
  run.progress:line("step %d: FID %.4f, Inception score %.3f of %d samples against %s", run.step, event.fid,
    event.inception_score, event.count, event.against)
  return event
end

return M
