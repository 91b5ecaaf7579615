--- A run's state: what is trained, in which stage, and how its parts are built. Only this file writes a run's fields
--- (tests/lua/run_spec.lua); the loop that moves it is train/loop.lua.
local ffi = require "ffi"
local checkpoint = require "perigee.record.checkpoint"
local choices = require "perigee.record.choices"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local device = require "perigee.core.device"
local Board = require "perigee.record.tensorboard"
local Events = require "perigee.record.events"
local failure = require "perigee.base.failure"
local fits = require "perigee.cost.fits"
local folder = require "perigee.record.folder"
local Group = require "perigee.train.group"
local means = require "perigee.train.means"
local op = require "perigee.core.op"
local optimisers = require "perigee.optim"
local parameters = require "perigee.stage.parameters"
local Progress = require "perigee.record.progress"
local schedules = require "perigee.schedules"
local settings = require "perigee.train.settings"
local signal_state = require "perigee.train.signal_state"
local signals = require "perigee.signals"
local stage_program = require "perigee.stage.program"
local step_program = require "perigee.train.step"
local stops = require "perigee.stops"
local suspects = require "perigee.train.suspects"
local teacher = require "perigee.teacher.teacher"
local teachers = require "perigee.teacher"
local tensor = core.tensor

local function no_field(_, name) error(("a run has no field '%s'; Run.new declares them"):format(tostring(name)), 2) end

---@class perigee.Run
local Run = setmetatable({}, { __index = no_field })
Run.__index = Run
Run.__newindex = no_field

--- Sets a stage's policy, and with it the signals that are measured. `text`: its source, if it was put in by hand.
local function set_policy(stage, finish, text)
  stage.finish, stage.finish_source = finish, text
  stage.measured = signals.of_stage(finish, stage.signals)
end

--- The run's copy of a stage that began after step `begun`: weights and `finish` may be changed in it.
local function live_stage(stage, begun)
  local live = { name = stage.name, index = stage.index, signals = stage.signals, needs_teacher = stage.needs_teacher,
                 losses = {}, begun = begun }
  set_policy(live, stage.finish)
  for k, entry in ipairs(stage.losses) do
    live.losses[k] = { name = entry.name, loss = entry.loss, weight = entry.weight }
    live.losses[entry.name] = live.losses[k]
  end
  return live
end

---@class perigee.RunOptions
---@field folder? string|false
---@field device? string              cpu
---@field progress? perigee.Progress  quiet
---@field trace? { fixed_time?: boolean, fixed_noise?: boolean, drop_labels?: boolean, fuse?: boolean }  inputs of the
---  gradients program that are otherwise drawn (stage/program.lua); the loader must give them
---@field continues? boolean          a checkpoint will be loaded, so that no weights file is read for the first values
---@field choices? table<string, string>  that checkpoint's
---@field train? function             trains a teacher that is itself a recipe

--- A run at step 0: models materialised, nothing compiled yet.
---@param recipe perigee.Recipe
---@param options? perigee.RunOptions
---@return perigee.Run
function Run.new(recipe, options)
  options = options or {}
  recipe:validate()
  local where = options.device or "cpu"
  device.expect_dtype(where, recipe.dtype)
  core_ffi.C.pg_tf32_set(recipe.tf32 and 1 or 0)
  for _, trained in ipairs(recipe:trained_modules()) do trained.module:dematerialise() end -- a run begins at the start
  parameters.check(recipe)
  local how
  if where ~= "cpu" then
    choices.recall(teachers.choices_path()) -- planning makes those that are missing
    choices.take(options.choices)
    recipe, how = fits.check(recipe, where, options.choices)
  end
  local progress = options.progress or Progress.new { quiet = true, clock = core_ffi.C.pg_clock_seconds }
  if how then progress:line("%s", how) end
  local tight = where == "cpu" and fits.check_host(recipe)
  if tight then progress:line("note: %s: the system may end this process", tight) end
  recipe.data:open()
  recipe:expect_data()
  local stage = live_stage(recipe.stages[1], 0)
  local self = setmetatable({
    -- given
    recipe = recipe,
    folder = options.folder or false,    -- false: nothing is written
    tensorboard = options.tensorboard or false, -- the log is written for TensorBoard too
    continues = options.continues or false, -- a checkpoint will be loaded
    device = where,
    progress = progress,
    trace = options.trace or {},
    batch_size = recipe.batch,
    micro = recipe.micro,                -- images a piece of the batch

    began = { step = 0, clock = core_ffi.C.pg_clock_seconds(), time = os.time() }, -- in this process

    -- where it stands
    step = 0,                            -- steps done
    stage = stage,                       -- name, index, begun, losses (by number and by name), finish, signals,
                                         -- finish_source
    policy_state = stage.finish:initial(),
    signal_state = {},                   -- what signals keep from reading to reading, by name
    finished = false,
    sound = true,                        -- the tensors are those of `step`: no step is under way, and none gave a NaN

    -- settings that may be changed while it runs
    optim = {},                          -- the optimiser's
    ema = recipe.ema,                    -- decay of the moving averages

    -- what is trained
    groups = Group.of_recipe(recipe, where, options.continues), -- the student, then each module of a loss still used
    active_groups = {},                  -- those of this stage
    teacher = teacher.new(recipe, { device = where, progress = progress, train = options.train }),
    loader = false,

    -- what runs the stage
    plan = false,                        -- of the gradients of one piece
    train_step = false,                  -- perigee.Step
    streams = {},                        -- the signals that it records
    weights = {},                        -- of the losses, by name: tensors that programs read
    random_state = tensor.empty({ 3 }, "int64", { device = where }), -- of passes other than training steps

    -- numbers
    pending = {},                        -- steps queued whose numbers have not been collected
    lag = where == "cpu" and 0 or 1,     -- steps that may be pending while the next one is queued
    losses = {},                         -- by name, of the last step collected
    gradient_norm = 0,                   -- before clipping
    means = means.new(),                 -- of both, over the steps since the last line of the log

    -- made and asked by hand (train/changes.lua)
    changes = { step = 0 },              -- the numbers of the changes made at `changes.step`
    last_change = 0,                     -- number of the newest change
    paused = false,
    finish_asked = false,                -- why the stage shall end before the next step
    owes_decision = false,               -- the policy is asked before the first step
    undecided = false,                   -- the policy has not answered for this step

    -- on disk
    saved_step = false,                  -- the step whose checkpoint the folder holds
    events = false,
    lock = false,
  }, Run)
  recipe.averages = self.groups[1]:average_views()
  for key, value in pairs(recipe.optim) do self.optim[key] = value end
  self:open_loader()
  return self
end

--- The loader of the batches to come: the data's fields and, with a cache, those of the teacher.
function Run:open_loader()
  if self.loader then self.loader:close() end
  local recipe = self.recipe
  self.loader = recipe.data:loader { seed = recipe.seed, batch = recipe.batch, device = self.device,
    more = self.teacher.cache or nil }
  self.loader:seek(self.step)
end

-- ---- settings, and a checkpoint's state --------------------------------------------------------------------------

--- The settings that may be changed while a run is going, as they are now; a policy that was put in by hand as source,
--- and the numbers of this step's changes. A checkpoint holds them and the recipe's.
function Run:settings()
  local now = settings.of(self.optim, self.ema, self.stage.losses, self.stage.finish_source)
  if self.changes.step == self.step and self.changes[1] then now.changes = { unpack(self.changes) } end
  return now
end

--- The same settings as the recipe has them; its policy by its text.
function Run:recipe_settings()
  local stage = self.recipe.stages[self.stage.index]
  return settings.of(self.recipe.optim, self.recipe.ema, stage.losses, stage.finish.text)
end

--- Takes over a checkpoint's state: step, stage, policy, and the settings that had been changed during the run.
--- `tensors`: those that signals kept.
function Run:restore(state, stage, tensors)
  self.step, self.began.step = state.step, state.step
  self.stage = live_stage(stage, state.stage_begun)
  local live, before, now = state.settings, state.recipe_settings, self:settings()
  settings.take_over(now.optim, live.optim, before.optim)
  settings.take_over(now, { ema = live.ema }, { ema = before.ema })
  settings.take_over(now.weights, live.weights, before.weights)
  for key, value in pairs(now.optim) do self.optim[key] = schedules.of(value) end
  self.ema = schedules.of(now.ema)
  for _, entry in ipairs(self.stage.losses) do entry.weight = schedules.of(now.weights[entry.name]) end
  self.changes = { step = state.step, unpack(live.changes or {}) }
  local kept = settings.policy(state, stage)
  set_policy(self.stage, kept.finish, kept.source)
  self.policy_state, self.finished, self.owes_decision = kept.state, kept.finished, kept.owed
  signal_state.free(self.signal_state)
  self.signal_state = signal_state.read(state.signals, tensors, self.stage.measured)
  self.means = means.new(state.means)
  self.loader:seek(self.step)
end

-- ---- building a stage --------------------------------------------------------------------------------------------

--- Frees what runs the stage.
function Run:free_programs()
  if self.train_step then self.train_step:free() end
  for _, weight in pairs(self.weights) do weight:free() end
  self.train_step, self.plan, self.weights, self.pending = false, false, {}, {}
end

--- The teachers for this stage and those after it. False: interrupted.
function Run:provide_teacher()
  local needed, cached = {}, self.teacher.cache
  for k = self.stage.index, #self.recipe.stages do
    for _, entry in ipairs(self.recipe:teachers_of(self.recipe.stages[k])) do needed[entry] = true end
  end
  if not self.teacher:provide(needed) then return false end
  if self.teacher.cache ~= cached then self:open_loader() end
  return true
end

--- Asks the loader for the fields that the stage's program reads, and only those.
function Run:want_fields()
  local read = {}
  for _, slot in ipairs(self.plan.slots) do read[slot.name] = true end
  for _, list in ipairs { self.recipe.data:fields(), self.teacher.cache and self.teacher.cache.fields or {} } do
    for _, field in ipairs(list) do self.loader:want(field.name, read[field.name] or false) end
  end
end

--- Builds what runs the stage. False: interrupted while the teacher was being trained or its cache filled.
---@return boolean
function Run:build_stage()
  local recipe, stage = self.recipe, self.stage
  self:free_programs()
  self.groups, self.active_groups = Group.of_stage(self.groups, recipe, stage)
  if not self:provide_teacher() then return false end
  collectgarbage() -- views of what was freed hold its memory
  local trained = {}
  for _, group in ipairs(self.active_groups) do
    group:clear_gradients()
    for _, entry in ipairs(group:trained()) do trained[#trained + 1] = entry end
  end
  self.streams = signals.streams(stage.measured)
  local plan, into = stage_program.plan(recipe, stage, {
    streams = self.streams, batch = self.micro, parameters = trained, device = self.device,
    fixed_time = self.trace.fixed_time,
    fixed_noise = self.trace.fixed_noise, drop_labels = self.trace.drop_labels, fuse = self.trace.fuse,
    recompute = recipe.recompute,
  })
  self.plan = plan
  self:want_fields()
  self.train_step = step_program.build {
    plan = plan, into = into, groups = self.active_groups, optim = self.optim, losses = stage.losses,
    seed = recipe.seed, micro = self.micro, pieces = self.batch_size / self.micro, dtype = recipe.dtype,
    device = self.device, ahead = self.lag,
  }
  if self.device ~= "cpu" then choices.save(teachers.choices_path()) end
  for _, entry in ipairs(stage.losses) do
    self.weights[entry.name] = tensor.empty({}, op.stat(recipe.dtype), { device = self.device })
  end
  return true
end

--- Moves to a stage by number and builds it. False: interrupted.
---@return boolean
function Run:enter_stage(index)
  self.stage = live_stage(self.recipe.stages[index], self.step)
  self.policy_state = self.stage.finish:initial()
  signal_state.free(self.signal_state)
  self.signal_state = {}
  return self:build_stage()
end

--- Builds the stage's programs again where its policy has come to need other streams, or does without one.
local function build_again(self, report)
  local now, same = signals.streams(self.stage.measured), true
  for k = 1, math.max(#now, #self.streams) do
    same = same and now[k] and self.streams[k] and now[k].key == self.streams[k].key
  end
  if same then return end
  self:collect(0, report)
  self:build_stage()
end

-- ---- steps -------------------------------------------------------------------------------------------------------

--- Puts the loss weights of the next step among a program's inputs.
function Run:bind_weights(inputs)
  for _, entry in ipairs(self.stage.losses) do
    local t = self.weights[entry.name]
    local value = ffi.new(core_ffi.ctype[t.dtype] .. "[1]", schedules.value(entry.weight, self.step + 1))
    core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(t), value, core_ffi.dtype_bytes[t.dtype]))
    inputs["weight " .. entry.name] = t
  end
  return inputs
end

--- Sets the random numbers of a pass that is no training step: (seed, step, first sample of the pass in the whole
--- batch).
function Run:set_random_state(step, first_sample)
  local values = ffi.new("int64_t[3]", self.recipe.seed, step, first_sample)
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(self.random_state), values, 24))
end

--- The next batch: tensors by field name. They are overwritten by the next call.
function Run:batch() return self.loader:next() end

--- A loader of random training images for a probe, in an order of its own for every step.
function Run:probe_loader(size)
  return self.recipe.data:loader {
    seed = self.recipe.seed + 7919 * (self.step + 1), batch = size, threads = 0, depth = 1,
    more = self.teacher.cache or nil, device = self.device,
  }
end

--- The end of a message about an error in mid-step.
local function outlook(self)
  if self.folder and #checkpoint.list(self.folder) == 0 then
    return "the run stops, and has no checkpoint yet: set every = { checkpoint = STEPS }"
  end
  return "the run stops and its last checkpoint stands"
end

--- Runs `body`. An error of a device with a queue gets the number of the step in whose queue it came up.
local function naming_step(self, step, body)
  if self.device == "cpu" then return body() end
  local fine, result = xpcall(body, failure.handler)
  if fine then return result end
  error(("step %d: %s; %s"):format(step, tostring(result), outlook(self)), 0)
end

--- Queues one optimisation step (gradients | reduce | update) on the next batch or the one given. collect() takes its
--- numbers in.
---@param batch? table<string, perigee.Tensor>
---@param execute? fun(executable: perigee.Executable, inputs: table)  in place of executable:run(inputs)
function Run:queue_step(batch, execute)
  local step = self.step + 1
  local reading = naming_step(self, step, function()
    batch = batch or self:batch()
    self.sound = false
    return self.train_step:queue(self:bind_weights {}, {
      batch = batch, step = step, optim = self.optim, ema = schedules.value(self.ema, step), execute = execute,
    })
  end)
  self.step, self.undecided = step, true
  self.pending[#self.pending + 1] = { step = step, reading = reading, stage = self.stage.name,
    losses = self.stage.losses, streams = self.streams, lr = optimisers.rate(self.optim, step) }
end

local function finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

local function expect_finite(self, step, what, value)
  if finite(value) then return end
  local looked, suspect = pcall(suspects.describe, self, step)
  error(("step %d: %s is %s%s; %s"):format(step, what, tostring(value), looked and suspect and ": " .. suspect or "",
    outlook(self)), 0)
end

---@class perigee.StepResult
---@field step integer
---@field stage string
---@field losses table<string, number>
---@field gradient_norm number  before clipping
---@field lr number

--- Collects the numbers of queued steps, all but the newest `left`, and tells `report` of each. A NaN or infinite loss
--- or gradient stops the run. Before a checkpoint is written nothing is left, so none holds the result of such a step.
---@param left integer
---@param report? fun(result: perigee.StepResult)
function Run:collect(left, report)
  while #self.pending > left do
    local pending = table.remove(self.pending, 1)
    local losses, norm, samples
    naming_step(self, pending.step, function() losses, norm, samples = self.train_step:numbers_of(pending.reading) end)
    for _, entry in ipairs(pending.losses) do
      expect_finite(self, pending.step, ("loss '%s'"):format(entry.name), losses[entry.name])
    end
    expect_finite(self, pending.step, "the gradient's norm", norm)
    self.losses, self.gradient_norm, self.sound = losses, norm, #self.pending == 0
    self.means:add(losses, norm)
    for _, signal in ipairs(pending.streams) do
      self.signal_state[signal.name] = signal.stream.absorb(signal, self.signal_state[signal.name],
        samples[signal.name], samples.time)
    end
    if report then
      report { step = pending.step, stage = pending.stage, lr = pending.lr, gradient_norm = norm, losses = losses }
    end
  end
end

--- One optimisation step. On a device with a queue its numbers are collected while it works on the next one.
---@param report? fun(result: perigee.StepResult)
---@param batch? table<string, perigee.Tensor>
function Run:advance(report, batch)
  build_again(self, report)
  self:queue_step(batch)
  self:collect(self.lag, report)
end

-- ---- the policy --------------------------------------------------------------------------------------------------

--- The signals that are due. Before the first step of a resumed run: only those that the model and the data alone
--- decide.
---@return perigee.Signal[]
function Run:signals_due()
  local list = {}
  for _, signal in ipairs(self.stage.measured) do
    if signal:due(self.step) and not (self.owes_decision and signal.of_step) then list[#list + 1] = signal end
  end
  return list
end

--- The event of this step: the signals that are due are measured, and logged.
---@return perigee.Event
local function event_of(self, report)
  local stage, due = self.stage, self:signals_due()
  if #due > 0 then self:collect(0, report) end
  local values = signals.measure(due, self, self.signal_state)
  local event = stops.event({ step = self.step, stage = stage.name, stage_steps = self.step - stage.begun },
    stage.measured)
  for _, signal in ipairs(due) do
    local value = values[signal.name]
    if type(value) == "number" and not finite(value) then
      error(("step %d: signal '%s' is %s"):format(self.step, signal.name, tostring(value)), 0)
    end
    event[signal.name] = value
    self:log { event = "signal", step = self.step, name = signal.name, value = value }
  end
  return event
end

--- Measures the signals that are due and asks the policy. Where it fails, a checkpoint of this step says that it is
--- still to be asked.
---@param report? fun(result: perigee.StepResult)
---@return boolean finished, string? reason
function Run:decide(report)
  self.undecided = true
  local finish, event = self.stage.finish, event_of(self, report)
  self.owes_decision = false
  local fine, finished, state, reason = xpcall(finish.decide, failure.handler, finish, event, self.policy_state)
  if not fine then error(("step %d, stage %s: %s"):format(self.step, self.stage.name, tostring(finished)), 0) end
  self.policy_state, self.undecided = state, false
  return finished, finished and (reason or finish.text) or nil
end

--- A remark on the stage's policy, such as that it is past already.
---@return string?
function Run:remark_of_policy()
  local remark = self.stage.finish:remark(self.step, self.stage.begun)
  return remark and ("%s: stage %s ends after its next step"):format(remark, self.stage.name)
end

--- The recipe's last stage has ended.
function Run:finish() self.finished, self.saved_step = true, false end

-- ---- by hand -----------------------------------------------------------------------------------------------------

--- Another policy for the stage, from its beginning. `text`: its source; nil: the recipe's own.
---@param stop perigee.Stop
---@param text? string
function Run:set_finish(stop, text)
  local before = self.stage.measured
  set_policy(self.stage, stop, text)
  signal_state.drop(self.signal_state, before, self.stage.measured)
  self.policy_state = stop:initial()
end

function Run:set_ema(decay) self.ema = decay end
function Run:pause(paused) self.paused = paused end

--- Asks that the stage ends before the next step.
function Run:ask_to_finish(reason) self.finish_asked = reason end

--- The reason given to ask_to_finish(), once; false: it was not asked.
---@return string|false
function Run:take_finish_request()
  local reason = self.finish_asked
  self.finish_asked = false
  return reason
end

--- Counts changes up to `number`.
function Run:know_change(number) self.last_change = math.max(self.last_change, number) end

--- A change was made at this step: a checkpoint of it, if there is one, lacks the change.
function Run:mark_change(number)
  if self.changes.step ~= self.step then self.changes = { step = self.step } end
  table.insert(self.changes, number)
  self.saved_step = false
end

-- ---- on disk -----------------------------------------------------------------------------------------------------

--- Locks the folder against other trainers. False: interrupted while waiting.
function Run:hold_folder(wait)
  self.lock = folder.hold(self, self.folder, wait) or false
  return self.lock ~= false
end

function Run:open_log()
  local function tell(message) self.progress:line("note: %s", message) end
  self.events = Events.open(self.folder, tell, self.tensorboard and Board.listener(self.folder, tell) or nil)
end

--- Appends an event to the run's log, if it has one. One that can't be written now is written later.
function Run:log(event)
  if self.events then self.events:write(event) end
end

--- Appends an event before what it tells of is done; an error if it can't be written.
function Run:log_first(event)
  if self.events then self.events:write_first(event) end
end

--- Bytes that events of this process have in the log.
function Run:log_bytes() return self.events and self.events.bytes or 0 end

function Run:close_log()
  if self.events then self.events:close() end
  self.events = false
end

--- The evaluations that the run's log tells of.
---@return table[]
function Run:evaluations() return self.folder and Events.evaluations(self.folder) or {} end

--- The folder holds a checkpoint of this step.
function Run:mark_saved() self.saved_step = self.step end

--- The tensors of a run by checkpoint name, as views: student, losses' modules, moving averages, moments.
---@return table<string, perigee.Tensor>
function Run:tensors()
  local all = {}
  for _, group in ipairs(self.groups) do
    for name, t in pairs(group:state()) do all[name] = t end
  end
  return all
end

--- What signals keep, without its tensors, for a checkpoint.
function Run:kept_by_signals() return signal_state.plain(self.signal_state, self.stage.measured) end

--- The tensors that signals keep, by checkpoint name.
---@return table<string, perigee.Tensor>
function Run:tensors_of_signals() return signal_state.tensors(self.signal_state) end

--- Ends the loaders' threads and gives all memory back, that of the recipe's models too.
function Run:free()
  self:free_programs()
  signal_state.free(self.signal_state)
  self.loader:close()
  for _, group in ipairs(self.groups) do group:free() end
  self.groups = {}
  self.random_state:free()
  self.teacher:dematerialise()
  self.recipe.averages = nil
  self:close_log()
  if self.lock then self.lock:free() end
  self.lock = false
end

return Run
