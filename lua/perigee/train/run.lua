--- A run's state: what is being trained, in which stage, and how its parts are built. The loop that moves it is
--- train.lua.
local ffi = require "ffi"
local choices = require "perigee.record.choices"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local Group = require "perigee.train.group"
local device = require "perigee.core.device"
local json = require "perigee.io.json"
local op = require "perigee.core.op"
local optimisers = require "perigee.optim"
local signals = require "perigee.signals"
local stage_program = require "perigee.stage.program"
local step_program = require "perigee.train.step"
local used_from = require("perigee.record.folder").used_from
local tensor = core.tensor

---@class perigee.Run
---@field recipe perigee.Recipe
---@field folder string|false
---@field step integer       steps done
---@field stage table        the stage under way: name, index, losses (by number and by name), finish
---@field optim table        the optimiser's settings, which may be changed while the run is going
---@field losses table<string, number>   of the step just done
---@field changes? table     numbers of the changes made by hand at step `changes.step`
local Run = {}
Run.__index = Run

--- The run's copy of a stage: weights and `finish` may be changed in it.
local function live_stage(stage)
  local live = { name = stage.name, index = stage.index, finish = stage.finish, signals = stage.signals,
                 needs_teacher = stage.needs_teacher, losses = {} }
  for k, entry in ipairs(stage.losses) do
    live.losses[k] = { name = entry.name, loss = entry.loss, weight = entry.weight }
    live.losses[entry.name] = live.losses[k]
  end
  return live
end

--- A run at step 0: models materialised, nothing compiled yet. `trace` says what the gradients program takes as inputs
--- instead of drawing it (stage/program.lua); the loader must give them.
---@param options? { folder?: string, device?: string, train?: function, trace?: { fixed_time?: boolean, fixed_noise?: boolean,
---  drop_labels?: boolean } }
function Run.new(recipe, options)
  options = options or {}
  recipe:validate()
  local where = options.device or "cpu"
  device.expect_dtype(where, recipe.dtype)
  core_ffi.C.pg_tf32_set(recipe.tf32 and 1 or 0)
  if where ~= "cpu" then
    choices.recall(require("perigee.teacher").choices_path()) -- planning makes those that are missing
    require("perigee.cost.fits").check(recipe, where)
  end
  recipe.data:open()
  local self = setmetatable({
    recipe = recipe, folder = options.folder or false, device = where, step = 0, losses = {}, gradient_norm = 0,
    batch_size = recipe.batch, micro = recipe.micro, ema = recipe.ema, optim = {}, groups = {}, weights = {},
    train = options.train, trace = options.trace or {}, pending = {}, lag = where == "cpu" and 0 or 1,
  }, Run)
  for key, value in pairs(recipe.optim) do self.optim[key] = value end
  local group_options = {
    seed = recipe.seed, dtype = recipe.dtype, device = self.device, micro = self.micro < self.batch_size,
  }
  self.groups[1] = Group.new("student", recipe.student, group_options)
  local modules, done = recipe:loss_modules(), {}
  for _, stage in ipairs(recipe.stages) do
    for _, entry in ipairs(stage.losses) do
      local names = {}
      for name in pairs(modules[entry.name]) do names[#names + 1] = name end
      table.sort(names)
      for _, name in ipairs(names) do
        local prefix = ("losses.%s.%s"):format(entry.name, name)
        if not done[prefix] then
          done[prefix] = Group.new(prefix, modules[entry.name][name], group_options)
          done[prefix].loss = entry.name
          self.groups[#self.groups + 1] = done[prefix]
        end
      end
    end
  end
  self:open_loader()
  self.state = tensor.empty({ 3 }, "int64", { device = self.device })
  self.stage = live_stage(recipe.stages[1])
  self.policy_state = self.stage.finish:initial()
  return self
end

--- The loader of the batches to come: the data's fields and, with a cache, what was kept of the teacher.
function Run:open_loader()
  if self.loader then self.loader:close() end
  local recipe = self.recipe
  self.loader = recipe.data:loader { seed = recipe.seed, batch = recipe.batch, device = self.device,
    more = self.teacher_cache }
  self.loader:seek(self.step)
end

local function settings_of(optim, ema, losses)
  local weights = {}
  for _, entry in ipairs(losses) do weights[entry.name] = entry.weight end
  return { optim = optim, ema = ema, weights = weights }
end

--- What may be changed while a run is going, as it is now, and as the recipe has it; both are in a checkpoint.
--- A policy that was put in by hand goes with them as source, and so do the numbers of this step's changes.
function Run:settings()
  local settings = settings_of(self.optim, self.ema, self.stage.losses)
  settings.finish = self.stage.finish_source
  if self.changes and self.changes.step == self.step and self.changes[1] then
    settings.changes = { unpack(self.changes) }
  end
  return settings
end
function Run:recipe_settings()
  return settings_of(self.recipe.optim, self.recipe.ema, self.recipe.stages[self.stage.index].losses)
end

--- A setting of a checkpoint goes on, unless the recipe has been changed there since.
local function take_over(target, live, before)
  for key, value in pairs(live) do
    local old, now = before[key], target[key]
    if now ~= nil and json.encode { old } == json.encode { now } then target[key] = value end
  end
end

local function reads_the_step(stop)
  for _, signal in ipairs(stop.needs) do
    if signal.of_step then return true end
  end
  return false
end

--- Takes over a checkpoint's state: step, stage, policy, and what had been changed while the run was going. A stage
--- whose policy the recipe has changed since asks the new one from its beginning: at this step already (`ask_now`), as
--- a run that had it from the start would, unless it reads losses of the step, which are not known any more.
function Run:restore(state, stage)
  self.step, self.finished = state.step, state.finished
  self.stage = live_stage(stage)
  local live, before = state.settings, state.recipe_settings
  take_over(self.optim, live.optim, before.optim)
  take_over(self, { ema = live.ema }, { ema = before.ema })
  local weights = self:settings().weights
  take_over(weights, live.weights, before.weights)
  for _, entry in ipairs(self.stage.losses) do entry.weight = weights[entry.name] end
  if live.finish then
    self.stage.finish_source = live.finish
    self.stage.finish = require("perigee.stops.source").read(live.finish, stage.finish)
  end
  self.changes = { step = state.step, unpack(live.changes or {}) }
  local finish = self.stage.finish
  if state.policy_text == finish.text then self.policy_state = state.policy
  else self.policy_state, self.finished, self.ask_now = finish:initial(), false, not reads_the_step(finish) end
end

--- Makes the teacher ready for stages that need it, or takes its memory back when no later one does. False: it was
--- being trained, or its cache filled, and that was interrupted.
function Run:settle_teacher()
  local teacher = self.recipe:teacher_model()
  if not teacher then return true end
  local needed = false
  for k = self.stage.index, #self.recipe.stages do needed = needed or self.recipe.stages[k].needs_teacher end
  if self.recipe.cache_teacher then return self:settle_cache(teacher, needed) end
  if needed and not self.teacher_ready then
    self.teacher_ready = require("perigee.teacher").prepare(self, self.train)
    return self.teacher_ready
  elseif not needed and self.teacher_ready then
    teacher:dematerialise()
    self.teacher_ready = false
  end
  return true
end

--- The same where the teacher is cached: it is there only while its file is found or filled.
function Run:settle_cache(teacher, needed)
  if needed and not self.teacher_cache then
    local cache = require "perigee.teacher.cache"
    local form = cache.layout(self.recipe)
    if not form then return true end -- losses that need a teacher and read nothing of it
    cache.check_size(self.recipe, form)
    self.teacher_ready = require("perigee.teacher").prepare(self, self.train)
    if not self.teacher_ready then return false end
    self.teacher_cache = cache.open(self, form)
    teacher:dematerialise()
    self.teacher_ready = false
    if not self.teacher_cache then return false end
    self:open_loader()
  elseif not needed and self.teacher_cache then
    self.teacher_cache = nil
    self:open_loader()
  end
  return true
end

--- Frees what runs the stage under way.
function Run:free_programs()
  if self.program then self.program:free() end
  for _, weight in pairs(self.weights) do weight:free() end
  self.program, self.plan, self.weights, self.pending = nil, nil, {}, {}
end

--- Builds what runs the stage under way. False: interrupted while the teacher was being trained.
function Run:build_stage()
  self:free_programs()
  local active, kept = {}, {}
  for _, group in ipairs(self.groups) do
    local used = not group.loss
    for _, entry in ipairs(self.stage.losses) do used = used or entry.name == group.loss end
    if used then active[#active + 1] = group end
    if used or used_from(self.recipe, self.stage.index, group.loss) then kept[#kept + 1] = group
    else group:free() end
  end
  self.groups = kept
  if not self:settle_teacher() then return false end
  collectgarbage() -- views of what was freed hold its memory
  local parameters = {}
  for _, group in ipairs(active) do
    group:clear_gradients()
    for _, entry in ipairs(group:trained()) do parameters[#parameters + 1] = entry end
  end
  local plan, into = stage_program.plan(self.recipe, self.stage, {
    batch = self.micro, parameters = parameters, device = self.device, fixed_time = self.trace.fixed_time,
    fixed_noise = self.trace.fixed_noise, drop_labels = self.trace.drop_labels, fuse = self.trace.fuse,
  })
  self.plan = plan
  local read = {}
  for _, slot in ipairs(plan.slots) do read[slot.name] = true end
  for _, list in ipairs { self.recipe.data:fields(), self.teacher_cache and self.teacher_cache.fields or {} } do
    for _, field in ipairs(list) do self.loader:want(field.name, read[field.name] or false) end
  end
  self.program = step_program.build {
    plan = plan, into = into, groups = active, losses = self.stage.losses, pieces = self.batch_size / self.micro,
    dtype = self.recipe.dtype, device = self.device, ahead = self.lag,
  }
  if self.device ~= "cpu" then choices.save(require("perigee.teacher").choices_path()) end
  self.active_groups = active
  self.weights = {}
  for _, entry in ipairs(self.stage.losses) do
    self.weights[entry.name] = tensor.empty({}, op.stat(self.recipe.dtype), { device = self.device })
  end
  return true
end

--- The signals that are due: after a restored step, before another is done, those that the model and the data alone
--- decide.
function Run:signals_due()
  local list = {}
  for _, signal in ipairs(signals.of_stage(self.stage.finish, self.stage.signals)) do
    if signal:due(self.step) and not (self.ask_now and signal.of_step) then list[#list + 1] = signal end
  end
  return list
end

--- Puts the current loss weights among a program's inputs.
function Run:bind_weights(inputs)
  for _, entry in ipairs(self.stage.losses) do
    local t = self.weights[entry.name]
    local value = ffi.new(core_ffi.ctype[t.dtype] .. "[1]", entry.weight)
    core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(t), value, core_ffi.dtype_bytes[t.dtype]))
    inputs["weight " .. entry.name] = t
  end
  return inputs
end

--- Says which random numbers a pass beside the steps draws: (seed, step, first sample of the pass in the whole batch).
function Run:set_state(step, first_sample)
  local values = ffi.new("int64_t[3]", self.recipe.seed, step, first_sample)
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(self.state), values, 24))
end

--- The next batch: tensors by field name. They are overwritten by the next call.
function Run:batch() return self.loader:next() end

--- A loader of random training images for a probe, in an order of its own for every step.
function Run:probe_loader(size)
  return self.recipe.data:loader {
    seed = self.recipe.seed + 7919 * (self.step + 1), batch = size, threads = 0, depth = 1, more = self.teacher_cache,
    device = self.device,
  }
end

--- One step, queued, on the next batch or the one given. Its numbers are on their way: result_of() waits for them.
---@param batch? table<string, perigee.Tensor>
function Run:advance(batch)
  local held = self.program:queue(self, batch or self:batch())
  self.step = self.step + 1
  return { step = self.step, reading = held, stage = self.stage.name, losses = self.stage.losses,
           lr = optimisers.rate(self.optim, self.step) }
end

--- What came of a step that was queued.
---@return { step: integer, stage: string, losses: table<string, number>, gradient_norm: number, lr: number }
function Run:result_of(pending)
  local losses, norm = self.program:numbers_of(pending.reading)
  return { step = pending.step, stage = pending.stage, lr = pending.lr, gradient_norm = norm, losses = losses }
end

--- The names of the tensors of a run and their current values, as views: student, losses' modules, moving averages,
--- moments.
function Run:tensors()
  local all = {}
  for _, group in ipairs(self.groups) do
    for name, t in pairs(group:state()) do all[name] = t end
  end
  return all
end

--- Moves to a stage by number; returns what build_stage does.
function Run:enter_stage(index)
  self.stage = live_stage(self.recipe.stages[index])
  self.policy_state = self.stage.finish:initial()
  return self:build_stage()
end

--- Ends the loaders' threads and gives all memory back, that of the recipe's models too.
function Run:free()
  self:free_programs()
  self.loader:close()
  for _, group in ipairs(self.groups) do group:free() end
  self.groups = {}
  self.state:free()
  local teacher = self.recipe:teacher_model()
  if teacher and self.teacher_ready then teacher:dematerialise() end
  self.teacher_ready = false
  if self.events then self.events:close() end
  if self.lock then self.lock:free() end
  self.events, self.lock = nil, nil
end

return Run
