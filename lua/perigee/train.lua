--- The run loop: batch in, step, events out, and a policy that is asked whether the stage is finished.
local core = require "perigee.core.ffi"
local checkpoint = require "perigee.train.checkpoint"
local folder = require "perigee.train.folder"
local Progress = require "perigee.train.progress"
local Run = require "perigee.train.run"

local C = core.C
local M = {}

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

--- One optimisation step: gradients | reduce | update. A loss or gradient that is no number stops the run here, before
--- the parameters are touched.
function M.step(run)
  local losses = run:gradients(run:batch())
  for name, value in pairs(losses) do
    if not finite(value) then
      error(("step %d: loss '%s' is %s; the run stops and its last checkpoint stands"):format(run.step + 1, name, tostring(value)), 0)
    end
  end
  run.losses = losses
  run.gradient_norm = run.update(run.optim, run.ema, run.step + 1)
  if not finite(run.gradient_norm) then
    error(("step %d: the gradient's norm is %s; the run stops and its last checkpoint stands"):format(run.step + 1,
      tostring(run.gradient_norm)), 0)
  end
  run.step = run.step + 1
end

--- Measures the signals that are due and asks the policy.
local function decide(run, log)
  local event = { step = run.step, stage = run.stage.name }
  for _, signal in ipairs(run.signals) do
    if signal:due(run.step) then
      event[signal.name] = signal:measure(run)
      if signal.kind ~= "loss" and signal.kind ~= "gradient_norm" then
        log { event = "signal", step = run.step, name = signal.name, value = event[signal.name] }
      end
    end
  end
  local finished, state, reason = run.stage.finish:decide(event, run.policy_state)
  run.policy_state = state
  return finished, reason
end

--- Trains a recipe to its end, or to `options.steps`, or until a signal asks to stop.
---@param options? { folder?: string, steps?: integer, device?: string, resume?: boolean, quiet?: boolean, prefix?: string, sample?: function }
---@return perigee.Run run, string outcome   "finished" | "steps" | "interrupted"
function M.train(recipe, options)
  options = options or {}
  local progress = Progress.new { quiet = options.quiet, prefix = options.prefix, clock = C.pg_clock_seconds }
  local run = Run.new(recipe, { folder = options.folder, device = options.device })
  run.progress = progress
  local log = folder.prepare(run, options)
  if run.finished then
    progress:line("the run in %s is finished: %d steps", run.folder, run.step)
    return run, "finished"
  end
  run:build_stage()
  log { event = "stage", step = run.step, stage = run.stage.name, policy = run.stage.finish.text, parameters = run.groups[1].count }
  progress:line("stage %s: %s; until %s", run.stage.name, folder.describe_losses(run.stage), run.stage.finish.text)

  local last = options.steps or folder.last_step(recipe)
  local every, outcome, saved = recipe.every, "steps", run.step
  local started, done = C.pg_clock_seconds(), run.step
  local function save()
    if not run.folder or saved == run.step then return end
    local path = checkpoint.save(run)
    saved = run.step
    log { event = "checkpoint", step = run.step, file = path:match "[^/]+$" }
  end

  while not options.steps or run.step < options.steps do
    M.step(run)
    local rate = (run.step - done) * recipe.batch / math.max(C.pg_clock_seconds() - started, 1e-9)
    local due = run.step % every.log == 0
    if due then
      log { event = "step", step = run.step, stage = run.stage.name, losses = run.losses, gradient_norm = run.gradient_norm,
            lr = require("perigee.optim").rate(run.optim, run.step), images_per_second = rate }
      started, done = C.pg_clock_seconds(), run.step
    end
    progress:step({ step = run.step, last = last, stage = run.stage.name, losses = folder.loss_pairs(run), rate = rate,
                    batch = recipe.batch }, due)

    local finished, reason = decide(run, log)
    if finished and run.stage.index == #recipe.stages then
      log { event = "end", step = run.step, reason = reason }
      run.finished, outcome = true, "finished"
      break
    elseif finished then
      local before = folder.memory()
      local from = run.stage.name
      run:enter_stage(run.stage.index + 1)
      local freed = (before - folder.memory()) / 2 ^ 20
      log { event = "stage", step = run.step, stage = run.stage.name, from = from, reason = reason, freed_mib = freed,
            policy = run.stage.finish.text }
      progress:line("step %d: stage %s ends (%s); stage %s begins: %s; %.1f MiB given back", run.step, from, reason, run.stage.name,
        folder.describe_losses(run.stage), freed)
    end
    if every.checkpoint > 0 and run.step % every.checkpoint == 0 then save() end
    if options.sample and every.sample > 0 and run.step % every.sample == 0 then options.sample(run) end
    if C.pg_signals_pending() ~= 0 then
      outcome = "interrupted"
      break
    end
  end
  save()
  run:close()
  return run, outcome
end

return M
