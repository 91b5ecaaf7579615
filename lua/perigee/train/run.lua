--- A run's state: what is being trained, in which stage, and how its parts are built. The loop that moves it is train.lua.
local ffi = require "ffi"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local Group = require "perigee.train.group"
local signals = require "perigee.signals"
local stage_program = require "perigee.train.stage"
local tensor = core.tensor

---@class perigee.Run
---@field recipe perigee.Recipe
---@field folder string|false
---@field step integer       steps done
---@field stage table        the stage under way: name, index, losses (by number and by name), finish
---@field optim table        the optimiser's settings, which may be changed while the run is going
---@field losses table<string, number>   of the step just done
local Run = {}
Run.__index = Run

--- The run's copy of a stage: weights and `finish` may be changed in it.
local function live_stage(stage)
  local live = { name = stage.name, index = stage.index, finish = stage.finish, needs_teacher = stage.needs_teacher, losses = {} }
  for k, entry in ipairs(stage.losses) do
    live.losses[k] = { name = entry.name, loss = entry.loss, weight = entry.weight }
    live.losses[entry.name] = live.losses[k]
  end
  return live
end

--- A run at step 0: models materialised, nothing compiled yet.
---@param options? { folder?: string, device?: string }
function Run.new(recipe, options)
  options = options or {}
  recipe:validate()
  recipe.data:open()
  local self = setmetatable({
    recipe = recipe, folder = options.folder or false, device = options.device or "cpu", step = 0, losses = {}, gradient_norm = 0,
    batch_size = recipe.batch, micro = recipe.micro, ema = recipe.ema, optim = {}, groups = {}, probes = {}, weights = {},
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
  self.loader = recipe.data:loader { seed = recipe.seed, batch = recipe.batch }
  self.state = tensor.empty({ 3 }, "int64", { device = self.device })
  self.stage = live_stage(recipe.stages[1])
  self.policy_state = self.stage.finish:initial()
  return self
end

--- What a user may have changed since the recipe, for the checkpoint.
function Run:settings()
  local weights = {}
  for _, entry in ipairs(self.stage.losses) do weights[entry.name] = entry.weight end
  return { optim = self.optim, ema = self.ema, weights = weights }
end

--- Takes over a checkpoint's state: step, stage, policy, and what had been changed while the run was going.
function Run:restore(state)
  self.step, self.finished = state.step, state.finished
  self.stage = live_stage(self.recipe.stages[state.stage])
  self.policy_state = state.policy
  for key, value in pairs(state.settings.optim) do self.optim[key] = value end
  self.ema = state.settings.ema
  for _, entry in ipairs(self.stage.losses) do entry.weight = state.settings.weights[entry.name] or entry.weight end
end

--- Does any stage from the given one on use a loss?
local function used_from(recipe, index, loss)
  for k = index, #recipe.stages do
    for _, entry in ipairs(recipe.stages[k].losses) do
      if entry.name == loss then return true end
    end
  end
  return false
end

--- Makes the teacher ready for stages that need it, or takes its memory back when no later one does.
function Run:settle_teacher()
  local teacher = self.recipe:teacher_model()
  if not teacher then return end
  local needed = false
  for k = self.stage.index, #self.recipe.stages do needed = needed or self.recipe.stages[k].needs_teacher end
  if needed and not self.teacher_ready then
    require("perigee.train.teacher").prepare(self)
    self.teacher_ready = true
  elseif not needed and self.teacher_ready then
    teacher:dematerialise()
    self.teacher_ready = false
  end
end

--- Builds the programs of the stage under way.
function Run:build_stage()
  for _, probe in pairs(self.probes) do probe.executable:free() end
  self.probes = {}
  if self.gradients_program then self.gradients_program:free() end
  self.gradients_program, self.update = nil, nil
  local active, kept = {}, {}
  for _, group in ipairs(self.groups) do
    local used = not group.loss
    for _, entry in ipairs(self.stage.losses) do used = used or entry.name == group.loss end
    if used then active[#active + 1] = group end
    if used or not group.loss or used_from(self.recipe, self.stage.index, group.loss) then kept[#kept + 1] = group
    else group:free() end
  end
  self.groups = kept
  collectgarbage()
  self:settle_teacher()
  local parameters = {}
  for _, group in ipairs(active) do
    local zero = core.ops.fill({ group.count }, { value = 0, dtype = "float32" })
    group.gradients:copy_(zero)
    if group.working_gradients then group.working_gradients:copy_(zero) end
    for _, entry in ipairs(group:trained()) do parameters[#parameters + 1] = entry end
  end
  local plan, into = stage_program.plan(self.recipe, self.stage, { batch = self.micro, parameters = parameters, device = self.device })
  self.plan = plan
  self.gradients_program = core.executable.new(plan, { into = into })
  self.update = require("perigee.train.update").build(active, self.device)
  self.active_groups = active
  self.weights = {}
  for _, entry in ipairs(self.stage.losses) do
    self.weights[entry.name] = tensor.empty({}, self.recipe.dtype == "float64" and "float64" or "float32", { device = self.device })
  end
  self.signals = signals.unique(self.stage.finish.needs)
end

--- Puts the current loss weights among a program's inputs.
function Run:bind_weights(inputs)
  local value = ffi.new "float[1]"
  for _, entry in ipairs(self.stage.losses) do
    value[0] = entry.weight
    local t = self.weights[entry.name]
    if t.dtype == "float32" then core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(t), value, 4))
    else t:copy_(tensor.tensor(entry.weight, {}, t.dtype)) end
    inputs["weight " .. entry.name] = t
  end
  return inputs
end

--- Says which random numbers a pass draws: (seed, step, first sample of the pass in the whole batch).
function Run:set_state(step, first_sample)
  local values = ffi.new("int64_t[3]", self.recipe.seed, step, first_sample)
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(self.state), values, 24))
end

--- The next batch: tensors by field name. They are overwritten by the next call.
function Run:batch() return self.loader:next() end

--- Batch `number` (from 1) of random training images for a probe, in an order of its own for every step.
function Run:probe_batch(number, size)
  if not self.probe_loader or self.probe_step ~= self.step or self.probe_size ~= size then
    if self.probe_loader then self.probe_loader:close() end
    self.probe_loader = self.recipe.data:loader { seed = self.recipe.seed + 7919 * (self.step + 1), batch = size, threads = 0 }
    self.probe_step, self.probe_size = self.step, size
  end
  self.probe_loader:seek(number - 1)
  local batch = {}
  for name, t in pairs(self.probe_loader:next()) do batch[name] = t end
  return batch
end

--- Part one and two of a step: gradients of a batch, piece by piece, summed in the groups' gradient buffers. Returns the
--- losses by name.
function Run:gradients(batch)
  local pieces = self.batch_size / self.micro
  local sums = {}
  for piece = 1, pieces do
    local first = (piece - 1) * self.micro
    local inputs = self:bind_weights { state = self.state }
    for name, t in pairs(batch) do inputs[name] = pieces == 1 and t or t:narrow(1, first + 1, self.micro) end
    self:set_state(self.step, first)
    local out = self.gradients_program:run(inputs)
    for _, entry in ipairs(self.stage.losses) do
      sums[entry.name] = (sums[entry.name] or 0) + out["loss " .. entry.name]:item() / pieces
    end
    for _, group in ipairs(self.active_groups) do
      if group.working_gradients then group.gradients:copy_(group.working_gradients) end
      if pieces > 1 then
        core.ops.accumulate(group.accumulated, group.gradients, { scale = 1 / pieces, first = piece == 1 })
        if piece == pieces then group.gradients:copy_(group.accumulated) end
      end
    end
  end
  return sums
end

--- The names of the tensors of a run and their current values, as views: student, losses' modules, moving averages, moments.
function Run:tensors()
  local all = {}
  for _, group in ipairs(self.groups) do
    for name, t in pairs(group:state()) do all[name] = t end
  end
  return all
end

--- Moves to a stage by number, or ends the run past the last one.
function Run:enter_stage(index)
  self.stage = live_stage(self.recipe.stages[index])
  self.policy_state = self.stage.finish:initial()
  self:build_stage()
end

function Run:close()
  self.loader:close()
  if self.probe_loader then self.probe_loader:close() end
end

return Run
