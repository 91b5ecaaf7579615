--- A stage as a program: the batch in, every loss and every parameter's gradient out.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local Context = require "perigee.stage.context"
local op = require "perigee.core.op"
local teacher_taps = require "perigee.stage.teacher_taps"
local program, tensor = core.program, core.tensor

local M = {}

--- The taps at which streams want the alignment's gradient apart.
local function forked_by(stage, streams)
  local names = {}
  for _, signal in ipairs(streams or {}) do
    names[#names + 1] = signal.stream.fork and signal.stream.fork(signal, stage)
  end
  return names
end

--- A loss's value: one number, in the dtype of statistics.
local function computed(p, entry, context, stat)
  local value = p:trace(function()
    local result = core_ffi.at(entry.loss.place, entry.loss.compute, entry.loss, context)
    return tensor.is_tensor(result) and program.of(result) and p:capture(result) or result
  end)
  if not program.is_value(value) or value:numel() ~= 1 then
    core_ffi.at(entry.loss.place, core_ffi.fail, "loss '%s' returns %s; expected one number that depends on the batch",
      entry.name, type(value) == "table" and not tensor.is_tensor(value) and not program.is_value(value) and "a table"
      or tostring(value))
  end
  return value:reshape({}):to(stat)
end

--- Records a stage's forward pass and losses. With the recipe's `cache_teacher`, `context.kept` says which inputs stand
--- for the teacher. `fixed_time` and `fixed_noise` make inputs `time` and `noise` of what is otherwise drawn.
---@class perigee.TraceOptions
---@field batch integer
---@field fixed_time? boolean
---@field fixed_noise? boolean
---@field drop_labels? boolean  training's dropping of labels and other conditions: true
---@field streams? perigee.Signal[]  signals that are recorded into the step (streams_of)
---@field admit? fun(t: perigee.Tensor)  hears of every tensor that the program reads, when it first does

---@param options perigee.TraceOptions
---@return { program, losses: table<string, perigee.Value>, weights: table<string, perigee.Value>,
---  total: perigee.Value, context }
function M.trace(recipe, stage, options)
  local p = program.new(("%s, stage %s"):format(recipe.name, stage.name))
  p.admit = options.admit
  local stat = op.stat(recipe.dtype)
  local batch = Context.inputs(p, recipe.data, options.batch)
  local matching = recipe:flow_matching(stage)
  local student = recipe.student
  local context = Context.new {
    program = p, batch_size = options.batch, student = student, teachers = recipe.teachers,
    averages = function(parameter) return recipe:average_of(parameter) end,
    modules = recipe:loss_modules(),
    data = recipe.data, batch = batch,
    labels = batch.labels, state = p:input("state", { 3 }, "int64"), dtype = recipe.dtype,
    kept = recipe.cache_teacher and teacher_taps.inputs(recipe, p, options.batch) or nil,
    path = matching and matching.path, time = matching and matching.time,
    prediction = matching and matching.prediction, least_sigma = matching and matching.least_sigma,
    drop_labels = options.drop_labels ~= false, forked = forked_by(stage, options.streams),
    t = options.fixed_time and p:input("time", { options.batch }, stat) or nil,
    noise = options.fixed_noise and p:input("noise",
      { options.batch, student.channels, student.size[1], student.size[2] },
      recipe.dtype) or nil,
  }
  local losses, weights, total = {}, {}, nil
  for _, entry in ipairs(stage.losses) do
    context.aligning = entry.loss.needs_teacher or false
    local value = computed(p, entry, context, stat)
    weights[entry.name] = p:input("weight " .. entry.name, {}, stat)
    losses[entry.name] = value
    local term = value * weights[entry.name]
    total = total and total + term or term
  end
  context.aligning = false
  for _, entry in ipairs(context.kept and recipe.teachers or {}) do teacher_taps.check(p, entry.model) end
  return { program = p, losses = losses, weights = weights, total = total, context = context }
end

--- The values of cached teachers that the recipe's stages read, together; by name.
---@return perigee.TeacherField[]
function M.teacher_fields(recipe)
  local fields, known = {}, {}
  for _, stage in ipairs(recipe.stages) do
    local found = stage.needs_teacher and M.trace(recipe, stage, { batch = 1 }).context.kept.fields or {}
    for _, field in ipairs(found) do
      if not known[field.name] then fields[#fields + 1] = field end
      known[field.name] = true
    end
  end
  table.sort(fields, function(a, b) return a.name < b.name end)
  return fields
end

-- ---- streams: what a step says of each of its samples -----------------------------------------------------------

--- What a stream is recorded from: the trace and, at the taps that streams fork, the gradients of all losses (`whole`)
--- and of those that read the tap itself as alignment (`branch`); false where nothing flows.
---@class perigee.StreamTrace
---@field stage table
---@field context perigee.Context
---@field losses table<string, perigee.Value>
---@field program perigee.Program
---@field dtype perigee.Dtype  of statistics
---@field forks table<string, { whole: perigee.Value|false, branch: perigee.Value|false, trunk: perigee.Value,
---  branch_value: perigee.Value }>  the tap's value, and as the alignment reads it

--- Adds to an output list what streams record, [B,n] each, and the samples' times.
local function record_streams(p, outputs, streams, given)
  if #streams == 0 then return end
  p:trace(function()
    local stat, count = given.dtype, given.context.batch_size
    local function add(name, value)
      outputs[#outputs + 1] = { name = "sample " .. name, value = value:to(stat):reshape { count, -1 } }
    end
    add("time", given.context:forward().t)
    for _, signal in ipairs(streams) do add(signal.name, signal.stream.record(signal, given)) end
  end)
end

--- The gradients program of a stage. `parameters` lists { name, tensor, into } for what is trained; a parameter that no
--- loss reaches gets a zero gradient.
---@return perigee.Plan plan, table<string, perigee.Tensor> into
function M.plan(recipe, stage, options)
  local trace = M.trace(recipe, stage, options)
  local p = trace.program
  local wrt, into = {}, {}
  for k, entry in ipairs(options.parameters) do wrt[k] = p:capture(entry.tensor) end
  local forks = {} -- by tap, the places of its two gradients
  for name, fork in pairs(trace.context.forks) do
    if fork.trunk then
      forks[name] = { #wrt + 1, #wrt + 2, trunk = fork.trunk, branch_value = fork.branch }
      wrt[#wrt + 1], wrt[#wrt + 2] = fork.trunk, fork.branch
    end
  end
  local seed = tensor.tensor(1, {}, trace.total.dtype)
  local gradients = core.gradient(p, { trace.total }, { seed }, wrt)
  local outputs = { { name = "total", value = trace.total } }
  for _, entry in ipairs(stage.losses) do
    outputs[#outputs + 1] = { name = "loss " .. entry.name, value = trace.losses[entry.name] }
  end
  for k, entry in ipairs(options.parameters) do
    if gradients[k] then
      local name = "gradient " .. entry.name
      outputs[#outputs + 1] = { name = name, value = gradients[k] }
      into[name] = entry.into
    end
  end
  for name, at in pairs(forks) do
    forks[name] = { whole = gradients[at[1]], branch = gradients[at[2]], trunk = at.trunk,
      branch_value = at.branch_value }
  end
  record_streams(p, outputs, options.streams or {}, { stage = stage, context = trace.context, losses = trace.losses,
    program = p, dtype = op.stat(recipe.dtype), forks = forks })
  return core.plan.build(p, outputs,
    { device = options.device, fuse = options.fuse, recompute = options.recompute }), into
end

return M
