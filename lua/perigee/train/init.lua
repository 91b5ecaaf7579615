--- The run loop: batch in, step, events out, and a policy that is asked whether the stage is finished.
local core = require "perigee.core.ffi"
local changes = require "perigee.train.changes"
local checkpoint = require "perigee.record.checkpoint"
local device = require "perigee.core.device"
local failure = require "perigee.base.failure"
local folder = require "perigee.record.folder"
local pace = require "perigee.train.pace"
local Progress = require "perigee.record.progress"
local Run = require "perigee.train.run"
local signals = require "perigee.signals"
local source = require "perigee.stops.source"
local teacher_cache = require "perigee.teacher.cache"

local C = core.C
---@class perigee.training
local M = {}

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

--- An error of a device, with the step in whose queue it came up.
local function of_step(run, step, body, ...)
  if run.device == "cpu" then return body(...) end
  local results = { xpcall(body, failure.handler, ...) }
  if not results[1] then
    error(("step %d: %s; the run stops and its last checkpoint stands"):format(step, tostring(results[2])), 0)
  end
  return unpack(results, 2)
end

--- Takes in the numbers of steps that were queued, all but the last `left`, and tells `report` of each. A loss or
--- gradient that is no number stops the run; before a checkpoint is written nothing is left, so none holds what came of
--- it.
function M.settle(run, left, report)
  while #run.pending > left do
    local pending = table.remove(run.pending, 1)
    local result = of_step(run, pending.step, run.result_of, run, pending)
    local function stop(what, value)
      error(("step %d: %s is %s; the run stops and its last checkpoint stands"):format(result.step, what,
        tostring(value)), 0)
    end
    for _, entry in ipairs(pending.losses) do
      if not finite(result.losses[entry.name]) then
        stop(("loss '%s'"):format(entry.name), result.losses[entry.name])
      end
    end
    if not finite(result.gradient_norm) then stop("the gradient's norm", result.gradient_norm) end
    run.losses, run.gradient_norm = result.losses, result.gradient_norm
    if report then report(result) end
  end
end

--- One optimisation step: gradients | reduce | update. On a device with a queue of its own the step's numbers are taken
--- in while it works on the next one.
---@param report? fun(result: table)
function M.step(run, report)
  run.pending[#run.pending + 1] = of_step(run, run.step + 1, run.advance, run)
  M.settle(run, run.lag, report)
end

--- Measures the signals that are due and asks the policy.
local function decide(run, log, report)
  local event = { step = run.step, stage = run.stage.name }
  local due = run:signals_due()
  if #due > 0 then M.settle(run, 0, report) end
  local values = signals.measure(due, run)
  for _, signal in ipairs(due) do
    local value = values[signal.name]
    if type(value) == "number" and not finite(value) then
      error(("step %d: signal '%s' is %s"):format(run.step, signal.name, tostring(value)), 0)
    end
    event[signal.name] = value
    log { event = "signal", step = run.step, name = signal.name, value = value }
  end
  local finished, state, reason = run.stage.finish:decide(event, run.policy_state)
  run.policy_state = state
  return finished, reason
end

--- The decision that a run owes at its first step (run.ask_now), where no signal is measured for it: before anything is
--- built and no teacher's cache is filled for a stage that ends here.
---@return { reason: string? }|false  whether the stage ends, and why
local function decide_first(run, log)
  if not run.ask_now or #run:signals_due() > 0 then return false end
  run.ask_now = false
  local finished, reason = decide(run, log)
  return finished and { reason = reason }
end

--- Ends a stage: the next one is built. False: that was interrupted.
local function change_stage(run, log, reason)
  local before, from = device.held(run.device), run.stage.name
  local built = run:enter_stage(run.stage.index + 1)
  local freed = math.max(before - device.held(run.device), 0) / 2 ^ 20
  log { event = "stage", step = run.step, stage = run.stage.name, from = from, reason = reason, freed_mib = freed,
        policy = run.stage.finish.text }
  run.progress:line("step %d: stage %s ends (%s); stage %s begins: %s; %.1f MiB given back", run.step, from, reason,
    run.stage.name, folder.describe_losses(run.stage), freed)
  return built
end

--- Steps until the recipe ends, or `options.steps`, or a signal. `ending`: what decide_first() gave.
local function loop(run, log, options, goes_on, ending)
  local recipe, every, progress = run.recipe, run.recipe.every, run.progress
  local last = options.steps or folder.last_step(recipe)
  local started, done = C.pg_clock_seconds(), run.step
  local steps = pace.new(C.pg_clock_seconds)
  local pending = goes_on and run.folder and changes.pending(run) or {}
  local console

  --- Logs and shows a step's numbers.
  local function report(result)
    local rate = (result.step - done) * recipe.batch / math.max(C.pg_clock_seconds() - started, 1e-9)
    local due = result.step % every.log == 0
    if due then
      log { event = "step", step = result.step, stage = result.stage, losses = result.losses,
            gradient_norm = result.gradient_norm, lr = result.lr, images_per_second = rate }
      started, done = C.pg_clock_seconds(), result.step
    end
    progress:step({ step = result.step, last = last, stage = result.stage, losses = folder.loss_pairs(run), rate = rate,
                    batch = recipe.batch }, due)
    steps:tick()
    local before, now = steps:gained()
    if before then
      log { event = "pace", step = result.step, stage = result.stage, seconds_before = before, seconds = now }
      progress:line("without the teacher a step takes %.1f ms, %.1f ms less than before", now * 1e3,
        (before - now) * 1e3)
    end
  end

  local function save()
    M.settle(run, 0, report)
    local path = run.folder and checkpoint.path(run.folder, run.step)
    if not path or run.saved == run.step then return path end
    checkpoint.save(run)
    run.saved = run.step
    log { event = "checkpoint", step = run.step, file = path:match "[^/]+$" }
    return path
  end

  --- Ends the stage; true where that ends the loop.
  local outcome = "steps"
  local function finish_stage(reason)
    M.settle(run, 0, report)
    local had_teacher = run.stage.needs_teacher
    if run.stage.index == #recipe.stages then
      log { event = "end", step = run.step, reason = reason }
      run.finished, run.saved, outcome = true, nil, "finished"
    elseif not change_stage(run, log, reason) then
      outcome = "interrupted"
    else
      steps:begin_stage(had_teacher and not run.stage.needs_teacher)
    end
    return outcome ~= "steps"
  end

  --- What happens between two steps: changes that are made again, and the consoles; true where that ends the loop.
  local function listen()
    changes.make_due(run, pending)
    if console then console:between_steps() end
    local reason = run.finish_asked
    run.finish_asked = nil
    return reason ~= nil and finish_stage(reason)
  end

  function source.report(message)
    log { event = "policy", step = run.step, stage = run.stage.name, error = message }
    progress:line("step %d: the policy failed, and the stage goes on: %s", run.step, message)
  end
  console = options.console and run.folder and options.console(run, save)
  if run.ask_now then
    local finished, reason = decide(run, log, report)
    run.ask_now, ending = false, finished and { reason = reason }
  end
  local ended = ending and finish_stage(ending.reason) or listen()
  while not ended and (not options.steps or run.step < options.steps) do
    M.step(run, report)
    local finished, reason = decide(run, log, report)
    local interrupted = C.pg_signals_pending() ~= 0
    if finished and finish_stage(reason) or listen() then break end
    if every.checkpoint > 0 and run.step % every.checkpoint == 0 then save() end
    if options.sample and every.sample > 0 and run.step % every.sample == 0 then options.sample(run) end
    if interrupted or C.pg_signals_pending() ~= 0 then
      outcome = "interrupted"
      break
    end
  end
  M.settle(run, 0, report)
  run.progress:close()
  save()
  if console then console:close() end
  return outcome
end

local function train(run, options)
  local log, goes_on = folder.prepare(run, options)
  if not log then return "interrupted" end
  if run.finished then
    run.progress:line("the run in %s is finished: %d steps", run.folder, run.step)
    return "finished"
  end
  local ending = decide_first(run, log)
  if not ending and not run:build_stage() then return "interrupted" end
  local remark = device.remark(run.device, run.recipe.dtype)
  if remark then run.progress:line("%s", remark) end
  if goes_on then run.progress:line("%s at step %d, stage %s", goes_on, run.step, run.stage.name)
  else
    log { event = "stage", step = run.step, stage = run.stage.name, policy = run.stage.finish.text,
          parameters = run.groups[1].count }
  end
  run.progress:line("stage %s: %s; until %s", run.stage.name, folder.describe_losses(run.stage), run.stage.finish.text)
  return loop(run, log, options, goes_on, ending)
end

---@class perigee.TrainOptions
---@field folder? string         the run's folder; without one nothing is written
---@field steps? integer         stop when so many steps of the run are done
---@field device? string
---@field resume? boolean        go on from the newest checkpoint, if there is one
---@field from? string           begin where another run stood: its folder, or one of its checkpoints
---@field wait? boolean          where another process trains in the folder, wait for it instead of failing
---@field quiet? boolean
---@field prefix? string         what begins the lines shown
---@field console? fun(run: perigee.Run, save: function): perigee.Console  opens the run's folder to consoles
---@field sample? fun(run: perigee.Run)  called every `every.sample` steps
---@field recipe_path? string    copied into the folder
---@field recipe_options? table  the recipe's options, for config.json

--- Trains a recipe to its end, or to `options.steps`, or until a signal asks to stop. The run that it returns holds its
--- models still; run:free() gives them back. After an error everything is given back.
---@param options? perigee.TrainOptions
---@return perigee.Run run, string outcome   "finished" | "steps" | "interrupted"
function M.train(recipe, options)
  options = options or {}
  folder.check(options.folder, options.resume)
  local run = Run.new(recipe, { folder = options.folder, device = options.device or recipe.device, train = M.train })
  run.progress = Progress.new { quiet = options.quiet, prefix = options.prefix, clock = C.pg_clock_seconds }
  local fine, outcome = xpcall(function() return train(run, options) end, failure.handler)
  if not fine then
    if run.teacher_cache then outcome = teacher_cache.set_aside(run.teacher_cache, outcome) end
    run:free()
    error(outcome, 0)
  end
  return run, outcome
end

return M
