--- Training: from a recipe to a run that has ended. train/run.lua is the state, train/loop.lua what moves it.
local checkpoint = require "perigee.record.checkpoint"
local core = require "perigee.core.ffi"
local describe = require "perigee.recipe.describe"
local device = require "perigee.core.device"
local failure = require "perigee.base.failure"
local folder = require "perigee.record.folder"
local Loop = require "perigee.train.loop"
local Progress = require "perigee.record.progress"
local resume = require "perigee.train.resume"
local Run = require "perigee.train.run"

---@class perigee.training
local M = {}

--- The decision that a continued run owes before its first step, if no signal has to be measured for it: asked before
--- anything is built and a teacher's cache is filled for a stage that ends here. Returns the reason, or nil.
local function decide_early(run)
  if not run.owes_decision or #run:signals_due() > 0 then return nil end
  local _, reason = run:decide()
  return reason
end

--- Begins or continues a run, and steps until it ends.
---@param run perigee.Run
---@param options perigee.TrainOptions
---@return "finished"|"steps"|"interrupted"
local function train(run, options)
  local how = resume.begin(run, options)
  if not how then return "interrupted" end
  if how == "new" and run.continues then error(("%s: its checkpoints were removed meanwhile"):format(run.folder), 0) end
  if run.finished then
    run.progress:line("the run in %s is finished: %d steps; a later end of the last stage's finish, in the recipe, "
      .. "would continue it", run.folder, run.step)
    return "finished"
  end
  local ending = decide_early(run)
  if not ending and not run:build_stage() then return "interrupted" end
  local stage, remark = run.stage, device.remark(run.device, run.recipe.dtype)
  if remark then run.progress:line("%s", remark) end
  if how ~= "new" then run.progress:line("%s at step %d, stage %s", how, run.step, stage.name)
  else
    run:log { event = "stage", step = run.step, stage = stage.name, policy = stage.finish.text,
      parameters = run.groups[1].count }
  end
  run.progress:line("stage %s: %s; until %s", stage.name, describe.losses(stage), stage.finish.text)
  local past = how == "new" and run:remark_of_policy()
  if past then run.progress:line("note: %s", past) end
  return Loop.new(run, options, how ~= "new"):run_to_end(ending)
end

---@class perigee.TrainOptions
---@field folder? string         the run's folder; without one nothing is written
---@field steps? integer         stop when so many steps of the run are done
---@field device? string
---@field resume? boolean        continue from the newest checkpoint, if there is one
---@field from? string           begin where another run stood: its folder, or one of its checkpoints
---@field wait? boolean          if another process trains in the folder, wait for it instead of failing
---@field tensorboard? boolean   write the log for TensorBoard too
---@field quiet? boolean
---@field prefix? string         what begins the lines shown
---@field console? fun(run: perigee.Run, save: function): perigee.Console  opens the run's folder to consoles
---@field sample? fun(run: perigee.Run)  called every `every.sample` steps
---@field evaluate? fun(run: perigee.Run)  called every `every.eval` steps
---@field recipe_path? string    copied into the folder
---@field recipe_options? table  the recipe's options, for config.json
---@field said? table            what the command line said, for config.json and --resume

--- Trains a recipe to its end, or to `options.steps`, or until a signal asks to stop. The run that it returns still
--- holds its models; run:free() gives them back. After an error everything is given back.
---@param options? perigee.TrainOptions
---@return perigee.Run run, string outcome   "finished" | "steps" | "interrupted"
function M.train(recipe, options)
  options = options or {}
  folder.check(options.folder, options.resume)
  local continues = options.from ~= nil or options.folder ~= nil and #checkpoint.list(options.folder) > 0
  local run = Run.new(recipe, {
    continues = continues, choices = continues and resume.choices(options) or nil,
    folder = options.folder, tensorboard = options.tensorboard, device = options.device or recipe.device,
    train = M.train,
    progress = Progress.new { quiet = options.quiet, prefix = options.prefix, clock = core.C.pg_clock_seconds },
  })
  local fine, outcome = xpcall(function() return train(run, options) end, failure.handler)
  if fine then return run, outcome end
  local message = run.teacher:explain(outcome)
  run:free()
  error(message, 0)
end

return M
