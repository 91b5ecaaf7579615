--- The cost of a recipe's stages, planned and not run: parameters, FLOPs, bytes by purpose, and a roofline time of a
--- step on a named machine. Nothing is allocated and no file is read, so it works for recipes whose data and weights
--- aren't there.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local device = require "perigee.core.device"
local layout = require "perigee.core.layout"
local machine = require "perigee.cost.machine"
local op = require "perigee.core.op"
local optim = require "perigee.optim"
local signals = require "perigee.signals"
local stage_parameters = require "perigee.stage.parameters"
local stage_program = require "perigee.stage.program"
local teacher_cache = require "perigee.teacher.cache"
local tensor = core.tensor

local M = {}

--- Bytes of a module's fixed tensors.
local function buffer_bytes(module, dtype)
  local bytes = 0
  for _, entry in ipairs(module:named_buffers()) do
    bytes = bytes + entry.tensor:numel() * core_ffi.dtype_bytes[dtype]
  end
  return bytes
end

--- The device with whose kernels a machine's plan is made. Their scratch differs: an accelerator's are CUDA's where
--- that can be opened, else the CPU's stand for them.
local function planned_for(on, dtype) return not on.processor and device.computes("cuda", dtype) and "cuda" or "cpu" end

-- ---- sizes ------------------------------------------------------------------------------------------------------

---@class perigee.StageSizes
---@field element integer  bytes of an element in the recipe's precision
---@field master integer   of one of the optimiser's
---@field low boolean      elements are smaller than masters: parameters and gradients have working copies
---@field pieces integer   of a batch
---@field batch integer    bytes of a batch, all fields
---@field on_cpu boolean   the batch is made where it is used

--- `kept`: the fields of a teacher's cache.
---@param kept? perigee.TeacherField[]
---@return perigee.StageSizes
local function sizes_of(recipe, where, kept)
  local element, master, batch = core_ffi.dtype_bytes[recipe.dtype], core_ffi.dtype_bytes[op.stat(recipe.dtype)], 0
  for _, fields in ipairs { recipe.data:fields(), kept or {} } do
    for _, field in ipairs(fields) do
      batch = batch + recipe.batch * layout.numel(field.shape) * core_ffi.dtype_bytes[field.dtype]
    end
  end
  return { element = element, master = master, low = master ~= element, pieces = recipe.batch / recipe.micro,
           batch = batch, on_cpu = where == "cpu" }
end

---@class perigee.StageParameters
---@field numbers table<string, integer>  parameters by whose they are: student, projector, teacher
---@field flat integer     elements of a flat buffer of all that the stage trains
---@field moved integer    of these, those that aren't frozen
---@field trained { name: string, tensor: perigee.Tensor }[]  what is not frozen
---@field teacher integer  bytes of the teacher, if it is in memory

--- The parameters that a stage works with, as meta tensors of the recipe's precision.
---@param sizes perigee.StageSizes
---@return perigee.StageParameters
local function parameters_of(recipe, stage, sizes)
  local result = { numbers = {}, flat = 0, moved = 0, trained = {}, teacher = 0 }
  local numbers, trained = result.numbers, result.trained
  for _, m in ipairs(recipe:trained_modules(stage)) do
    m.module:assume_dtype(recipe.dtype)
    local kind = m.loss and "projector" or "student"
    numbers[kind] = (numbers[kind] or 0) + m.module:parameter_count()
    local entries, padded, moving = m.module:layout()
    result.flat, result.moved = result.flat + padded, result.moved + moving
    for _, entry in ipairs(entries) do
      if entry.frozen then numbers.frozen = (numbers.frozen or 0) + entry.numel
      else trained[#trained + 1] = { name = m.name .. "." .. entry.name, tensor = entry.tensor } end
    end
  end
  local held = {} -- teachers that this stage or a later one needs
  for k = stage.index, recipe.cache_teacher and 0 or #recipe.stages do
    for _, entry in ipairs(recipe:teachers_of(recipe.stages[k])) do held[entry] = true end
  end
  for entry in pairs(held) do
    local teacher = entry.model
    teacher:assume_dtype(recipe.dtype)
    numbers.teacher = (numbers.teacher or 0) + teacher:parameter_count()
    result.teacher = result.teacher + select(2, teacher:layout()) * sizes.element + buffer_bytes(teacher, recipe.dtype)
  end
  return result
end

-- ---- memory and time --------------------------------------------------------------------------------------------

--- Bytes of batches: on the CPU the one in use, those made ahead and their samples' numbers; elsewhere the one in use
--- and two on their way (runtime/feed.c).
local function data_bytes(recipe, sizes)
  if not sizes.on_cpu then return 3 * sizes.batch end
  return sizes.batch * (1 + (recipe.data.depth or 0)) + 8 * recipe.batch
end

--- Bytes of a step by purpose.
local function memory_of(recipe, sizes, parameters, arena_bytes)
  local element, master, flat, moved = sizes.element, sizes.master, parameters.flat, parameters.moved
  return {
    parameters = flat * master + (sizes.low and flat * element or 0) + buffer_bytes(recipe.student, recipe.dtype),
    gradients = moved * master + ((sizes.low or sizes.pieces > 1) and moved * element or 0),
    optimizer = moved * #optim.definition(recipe.optim).moments * master, ema = flat * master,
    teacher = parameters.teacher, arena = arena_bytes, data = data_bytes(recipe, sizes),
  }
end

--- Bytes that an update moves: the norm reads gradients; the optimiser reads them, and reads and writes parameters,
--- averages and moments, and the working copy where there is one.
local function update_bytes(recipe, sizes, moved)
  local moments = #optim.definition(recipe.optim).moments
  return moved * ((6 + 2 * moments) * sizes.master + (sizes.low and 2 * sizes.element or 0))
end

--- One reading of signals that are measured together: { names, every, bytes, flops, seconds }. Nil where it takes no
--- more than a look. `averages`: bytes of the weights' moving averages, where a program can't read them as they are.
local function reading(recipe, stage, members, on, kernels, averages)
  if not members[1].price then return nil end
  local names, every = {}, math.huge
  for k, signal in ipairs(members) do names[k], every = signal.name, math.min(every, signal.settings.every) end
  local cost = members[1].price(members, { recipe = recipe, stage = stage, micro = recipe.micro, trace = {},
    device = kernels, averages = averages })
  return { names = names, every = every, bytes = cost.bytes, flops = cost.flops * cost.batches,
    seconds = machine.seconds(on, cost.calls, recipe.dtype) * cost.batches }
end

--- The readings of a stage's signals, and the bytes that they take, with batches of their own (nil where no signal
--- takes any): one is made at a time, and those of signals that hold their program stay.
local function readings_of(recipe, stage, on, kernels, sizes, averages)
  local list, most, held = {}, 0, 0
  for _, members in ipairs(signals.families(signals.of_stage(stage.finish, stage.signals))) do
    local one = reading(recipe, stage, members, on, kernels, averages)
    if one then
      list[#list + 1] = one
      local batches = sizes.batch / sizes.pieces * (sizes.on_cpu and 2 or 3)
      most = math.max(most, (members[1].holds and 0 or one.bytes) + batches)
      held = held + (members[1].holds and one.bytes or 0)
    end
  end
  return list, #list > 0 and held + most or nil
end

-- ---- stages -----------------------------------------------------------------------------------------------------

--- The gradients program of one stage over meta parameters, with everything counted.
---@param options? { device?: string, kernels?: string, kept?: perigee.TeacherField[] }  a machine; whose kernels the
---  plan is made with (default: its own, where they are here); fields of a teacher's cache. The recipe's `recompute`
---  counts; nil is true
function M.stage(recipe, stage, options)
  options = options or {}
  local on = machine.find(options.device or "cpu")
  local where = planned_for(on, recipe.dtype)
  local kernels = options.kernels or where
  local sizes = sizes_of(recipe, where, options.kept or nil)
  local parameters = parameters_of(recipe, stage, sizes)
  local plan = stage_program.plan(recipe, stage,
    { streams = signals.streams(signals.of_stage(stage.finish, stage.signals)), batch = recipe.micro,
      parameters = parameters.trained, device = kernels, recompute = recipe.recompute })
  local cost, update = plan:cost(), update_bytes(recipe, sizes, parameters.moved)
  local memory, total = memory_of(recipe, sizes, parameters, plan.arena_bytes), 0
  local averages = sizes.low and parameters.flat * sizes.element or 0
  local readings, reading_bytes = readings_of(recipe, stage, on, kernels, sizes, averages)
  memory.signal = reading_bytes
  for _, bytes in pairs(memory) do total = total + bytes end
  local seconds = machine.seconds(on, plan.calls, recipe.dtype) * sizes.pieces + update / on.bandwidth
  return {
    stage = stage.name, device = on.name, planned_for = kernels, plan = plan, calls = cost.calls,
    parameters = parameters.numbers, memory = memory, memory_total = total,
    flops = cost.flops * sizes.pieces, flops_per_image = cost.flops / recipe.micro,
    bytes_moved = cost.bytes * sizes.pieces + update, seconds = seconds,
    images_per_second = recipe.batch / seconds, signals = readings,
  }
end

--- A teacher's cache: bytes and the time to fill it once (see teacher_cache.price). Nil where the recipe has none.
function M.cache(recipe, options)
  local form = recipe.cache_teacher and teacher_cache.layout(recipe)
  if not form then return nil end
  local on = machine.find(options and options.device or "cpu")
  return tensor.tidy(function()
    return teacher_cache.price(recipe, form, function(calls) return machine.seconds(on, calls, recipe.dtype) end)
  end)
end

--- Every stage of a recipe, as it says or, where it leaves that open, in one piece and with cheap values computed again
--- (cost/pieces.lua: other ways).
---@param options? { device?: string, kernels?: string }  as for M.stage
function M.stages(recipe, options)
  local list, form = {}, recipe.cache_teacher and teacher_cache.layout(recipe)
  local last = 0 -- the last stage that reads the teacher: its cache is mapped until then
  for k, stage in ipairs(recipe.stages) do last = stage.needs_teacher and k or last end
  for k, stage in ipairs(recipe.stages) do
    list[k] = tensor.tidy(M.stage, recipe, stage, {
      device = options and options.device, kernels = options and options.kernels,
      kept = form and k <= last and form.fields,
    })
  end
  return list
end

--- The same for a recipe that hasn't been checked yet.
function M.recipe(recipe, options)
  stage_parameters.check(recipe:validate())
  return M.stages(recipe, options)
end

return M
