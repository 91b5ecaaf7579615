--- The loop of a run: batch in, step, events out, and a policy that is asked whether the stage is finished.
local changes = require "perigee.train.changes"
local checkpoint = require "perigee.record.checkpoint"
local core = require "perigee.core.ffi"
local describe = require "perigee.recipe.describe"
local device = require "perigee.core.device"
local failure = require "perigee.base.failure"
local optim = require "perigee.optim"
local pace = require "perigee.train.pace"
local policy = require "perigee.record.policy"

local C = core.C

---@class perigee.Loop
---@field run perigee.Run
---@field options perigee.TrainOptions
---@field pace perigee.Pace
---@field clock number        when the last line of the log was written, and
---@field logged integer      the step that it was about
---@field newest? perigee.StepResult  of the newest step that was reported
---@field saved_at number     when the newest checkpoint was written, or the loop began
---@field pending table[]     changes of the log that are still to be made again
---@field console? perigee.Console
---@field outcome "steps"|"finished"|"interrupted"|false  why the loop ended; false: it continues
local Loop = {}
Loop.__index = Loop

local M = {}

---@param run perigee.Run
---@param options perigee.TrainOptions
---@param continues boolean  the run was resumed or forked
---@return perigee.Loop
function M.new(run, options, continues)
  return setmetatable({
    run = run, options = options, pace = pace.new(C.pg_clock_seconds), clock = C.pg_clock_seconds(), logged = run.step,
    saved_at = C.pg_clock_seconds(), outcome = false,
    pending = continues and run.folder and changes.pending(run) or {},
  }, Loop)
end

--- Images a second since the last line of the log.
function Loop:rate(step)
  return (step - self.logged) * self.run.batch_size / math.max(C.pg_clock_seconds() - self.clock, 1e-9)
end

--- Logs the means over the steps since the last line. Returns the losses among them.
---@param result perigee.StepResult  of the newest step
---@return table<string, number>
function Loop:log_means(result)
  local run = self.run
  local means = run.means:take()
  run:log { event = "step", step = result.step, stage = result.stage, losses = means.losses,
    gradient_norm = means.gradient_norm, steps = means.steps, lr = result.lr,
    images_per_second = self:rate(result.step) }
  self.clock, self.logged = C.pg_clock_seconds(), result.step
  return means.losses
end

--- Logs and shows a step's numbers: on a terminal each step's, elsewhere what is logged.
---@param result perigee.StepResult
function Loop:report(result)
  local run, rate, shown = self.run, self:rate(result.step), result.losses
  local due = result.step % run.recipe.every.log == 0
  self.newest = result
  if due then
    local means = self:log_means(result)
    shown = run.progress.terminal and shown or means
  end
  local losses = {}
  for k, entry in ipairs(run.stage.losses) do losses[k] = { entry.name, shown[entry.name] or 0 } end
  run.progress:step({ step = result.step, last = self.options.steps or describe.last_step(run.recipe, run.stage),
    stage = result.stage, losses = losses, rate = rate, batch = run.batch_size }, due)
  self.pace:tick()
  local before, seconds = self.pace:gained()
  if before then
    run:log { event = "pace", step = result.step, stage = result.stage, seconds_before = before, seconds = seconds }
    run.progress:line("without the teacher a step takes %.1f ms, %.1f ms less than before", seconds * 1e3,
      (before - seconds) * 1e3)
  end
end

--- Collects the numbers of all steps that are queued.
function Loop:collect_all() self.run:collect(0, self.reporter) end

--- Writes a checkpoint of this step, if the folder has none. Returns its path.
---@return string?
function Loop:save()
  local run = self.run
  self:collect_all()
  local path = run.folder and checkpoint.path(run.folder, run.step)
  if not path or run.saved_step == run.step then return path end
  checkpoint.save(run)
  run:mark_saved()
  self.saved_at = C.pg_clock_seconds()
  run:log { event = "checkpoint", step = run.step, file = path:match "[^/]+$" }
  return path
end

--- Builds the next stage. False: interrupted.
function Loop:change_stage(reason)
  local run = self.run
  local before, from = device.held(run.device), run.stage.name
  local built = run:enter_stage(run.stage.index + 1)
  local freed = math.max(before - device.held(run.device), 0) / 2 ^ 20
  run:log { event = "stage", step = run.step, stage = run.stage.name, from = from, reason = reason, freed_mib = freed,
    policy = run.stage.finish.text }
  run.progress:line("step %d: stage %s ends (%s); stage %s begins: %s; until %s%s", run.step, from, reason,
    run.stage.name, describe.losses(run.stage), run.stage.finish.text,
    freed >= 0.05 and ("; %.1f MiB given back"):format(freed) or "")
  local remark = run:remark_of_policy()
  if remark then run.progress:line("note: %s", remark) end
  return built
end

--- Ends the stage; the loop ends with the last one.
function Loop:finish_stage(reason)
  local run = self.run
  self:collect_all()
  if run.means.steps > 0 then -- no mean spans two stages
    self:log_means(self.newest or { step = run.step, stage = run.stage.name, lr = optim.rate(run.optim, run.step) })
  end
  local had_teacher = run.stage.needs_teacher
  if run.stage.index == #run.recipe.stages then
    run:finish() -- before the log is written: if that fails, the checkpoint says that the run has ended
    run:log { event = "end", step = run.step, reason = reason }
    run.progress:line("step %d: stage %s ends (%s)", run.step, run.stage.name, reason)
    self.outcome = "finished"
  elseif self:change_stage(reason) then
    self.pace:begin_stage(had_teacher and not run.stage.needs_teacher)
  else
    self.outcome = "interrupted"
  end
end

--- Between two steps: changes that are made again, and the consoles.
function Loop:listen()
  changes.make_due(self.run, self.pending)
  if self.console then self.console:between_steps() end
  local reason = self.run:take_finish_request()
  if reason then self:finish_stage(reason) end
end

--- Asks the policy, and ends the stage if it says so.
function Loop:ask_policy()
  local finished, reason = self.run:decide(self.reporter)
  if finished then self:finish_stage(reason) end
end

--- Is a checkpoint due: every so many steps, or, if the recipe doesn't say how many, every so many minutes?
function Loop:checkpoint_is_due()
  local every, step = self.run.recipe.every, self.run.step
  if every.checkpoint then return every.checkpoint > 0 and step % every.checkpoint == 0 end
  return every.minutes > 0 and C.pg_clock_seconds() - self.saved_at >= 60 * every.minutes
end

--- Draws samples, or evaluates them. Training does not depend on it: if it fails, training continues, and a line and an
--- event say so. A signal ends it, and then the loop.
---@param about "samples"|"evaluation"
---@param body fun(run: perigee.Run)
function Loop:look(about, body)
  local run = self.run
  local fine, message = xpcall(body, failure.handler, run)
  if fine or C.pg_signals_pending() ~= 0 then return end
  run:log { event = "warning", step = run.step, about = about, message = tostring(message) }
  run.progress:line("step %d: no %s, training continues: %s", run.step, about, tostring(message))
end

--- A checkpoint, a picture of samples and their evaluation, if they are due.
function Loop:keep_record()
  local step, every, options = self.run.step, self.run.recipe.every, self.options
  local function due(steps) return steps > 0 and step % steps == 0 end
  if self:checkpoint_is_due() then self:save() end
  if options.sample and due(every.sample) then self:look("samples", options.sample) end
  if options.evaluate and due(every.eval) then self:look("evaluation", options.evaluate) end
end

--- A policy's function that was typed in has failed: the stage continues.
function Loop:report_policy(message)
  local run = self.run
  run:log { event = "policy", step = run.step, stage = run.stage.name, error = message }
  run.progress:line("step %d: the policy failed, the stage continues: %s", run.step, message)
end

--- After an error: if the tensors are those of a whole step, what has been trained is saved first. Returns the message
--- with a word about that.
function Loop:rescue(message)
  local run = self.run
  message = run.teacher:explain(message)
  if not run.folder or type(message) ~= "string" then return message end
  local saved = pcall(function()
    self:collect_all()
    return run.sound and run.step > 0 and self:save() or error "nothing to save"
  end)
  return saved and ("%s\nstep %d is saved; continue with --resume"):format(message, run.step) or message
end

--- The steps themselves.
function Loop:iterate(ending)
  local run, steps = self.run, self.options.steps
  if ending then self:finish_stage(ending)
  elseif run.owes_decision then self:ask_policy() end
  if not self.outcome then self:listen() end
  while not self.outcome and (not steps or run.step < steps) do
    run:advance(self.reporter)
    self:ask_policy()
    local interrupted = C.pg_signals_pending() ~= 0
    if not self.outcome then self:listen() end
    if self.outcome then break end
    self:keep_record()
    if interrupted or C.pg_signals_pending() ~= 0 then self.outcome = "interrupted" end
  end
  self:collect_all()
end

--- Steps until the recipe ends, or `options.steps`, or a signal. `ending`: the stage ends before its first step, and
--- why.
---@param ending? string
---@return "steps"|"finished"|"interrupted"
function Loop:run_to_end(ending)
  local run = self.run
  self.reporter = function(result) self:report(result) end
  policy.report = function(message) self:report_policy(message) end
  self.console = self.options.console and run.folder and self.options.console(run, function() return self:save() end)
  local fine, message = xpcall(function() self:iterate(ending) end, failure.handler)
  run.progress:close()
  if fine then self:save() end
  if self.console then self.console:close() end
  if not fine then error(self:rescue(message), 0) end
  return self.outcome or "steps"
end

return M
