--- What a recipe's stages cost, planned and not run: parameters, FLOPs, bytes by purpose, and a roofline time of a step
--- on a named machine. Nothing is allocated and no file is read, so it works for recipes whose data and weights aren't
--- there.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local device = require "perigee.core.device"
local layout = require "perigee.core.layout"
local machine = require "perigee.cost.machine"
local op = require "perigee.core.op"
local optim = require "perigee.optim"
local parameters = require "perigee.stage.parameters"
local signals = require "perigee.signals"
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

--- One reading of signals that are measured together: { names, every, bytes, flops, seconds }. Nil where it takes no
--- more than a look. `averages`: bytes of the weights' moving averages, where a program can't read them as they are.
local function reading(recipe, stage, members, on, where, averages)
  if not members[1].price then return nil end
  local names, every = {}, math.huge
  for k, signal in ipairs(members) do names[k], every = signal.name, math.min(every, signal.settings.every) end
  local cost = members[1].price(members, { recipe = recipe, stage = stage, micro = recipe.micro, trace = {},
    device = where, averages = averages })
  return { names = names, every = every, bytes = cost.bytes, flops = cost.flops * cost.batches,
    seconds = machine.seconds(on, cost.calls, recipe.dtype) * cost.batches }
end

--- The gradients program of one stage over meta parameters, with everything counted.
---@param options? { device?: string, kernels?: string, kept?: table[] }  a machine; whose kernels the plan is made with
---  (default: its own, where they are here); fields of a teacher's cache
function M.stage(recipe, stage, options)
  options = options or {}
  local on = machine.find(options.device or "cpu")
  local where = planned_for(on, recipe.dtype)
  local kernels = options.kernels or where
  local size = core_ffi.dtype_bytes[recipe.dtype]
  local numbers, flat, moved, trained = {}, 0, 0, {}
  for _, m in ipairs(recipe:trained_modules(stage)) do
    m.module:assume_dtype(recipe.dtype)
    local kind = m.loss and "projector" or "student"
    numbers[kind] = (numbers[kind] or 0) + m.module:parameter_count()
    local entries, padded, moving = m.module:layout()
    flat, moved = flat + padded, moved + moving
    for _, entry in ipairs(entries) do
      if entry.frozen then numbers.frozen = (numbers.frozen or 0) + entry.numel
      else trained[#trained + 1] = { name = m.name .. "." .. entry.name, tensor = entry.tensor } end
    end
  end
  local teacher, teacher_bytes = recipe:teacher_model(), 0
  if stage.needs_teacher and not recipe.cache_teacher then
    teacher:assume_dtype(recipe.dtype)
    numbers.teacher = teacher:parameter_count()
    teacher_bytes = select(2, teacher:layout()) * size + buffer_bytes(teacher, recipe.dtype)
  end
  local loaded = { unpack(recipe.data:fields()) }
  for _, field in ipairs(options.kept or {}) do loaded[#loaded + 1] = field end
  local plan = stage_program.plan(recipe, stage, { batch = recipe.micro, parameters = trained, device = kernels })
  local cost = plan:cost()
  local pieces = recipe.batch / recipe.micro
  local batch_bytes = 0
  for _, field in ipairs(loaded) do
    batch_bytes = batch_bytes + recipe.batch * layout.numel(field.shape) * core_ffi.dtype_bytes[field.dtype]
  end
  local data_bytes = batch_bytes * 3 -- the batch, and two on their way (runtime/feed.c)
  -- made ahead; samples' numbers
  if where == "cpu" then data_bytes = batch_bytes * (1 + (recipe.data.depth or 0)) + 8 * recipe.batch end
  local moments = #optim.definition(recipe.optim).moments
  local master = core_ffi.dtype_bytes[op.stat(recipe.dtype)]
  local low = master ~= size
  local memory = {
    parameters = flat * master + (low and flat * size or 0) + buffer_bytes(recipe.student, recipe.dtype),
    gradients = moved * master + ((low or pieces > 1) and moved * size or 0),
    optimizer = moved * moments * master, ema = flat * master, teacher = teacher_bytes, arena = plan.arena_bytes,
    data = data_bytes,
  }
  local probes = {}
  for _, members in ipairs(signals.families(signals.of_stage(stage.finish, stage.signals))) do
    local probe = reading(recipe, stage, members, on, kernels, low and flat * size or 0)
    if probe then
      probes[#probes + 1] = probe
      local bytes = probe.bytes + batch_bytes / pieces * (where == "cpu" and 2 or 3)
      memory.signal = math.max(memory.signal or 0, bytes) -- while it measures; one does at a time
    end
  end
  local total = 0
  for _, bytes in pairs(memory) do total = total + bytes end
  -- the norm reads gradients; the update reads them, and reads and writes parameters, averages and moments
  local update_bytes = moved * ((6 + 2 * moments) * master + (low and 2 * size or 0))
  local seconds = machine.seconds(on, plan.calls, recipe.dtype) * pieces + update_bytes / on.bandwidth
  return {
    stage = stage.name, parameters = numbers, flops = cost.flops * pieces,
    flops_per_image = cost.flops / recipe.micro,
    bytes_moved = cost.bytes * pieces + update_bytes, memory = memory, memory_total = total, calls = cost.calls,
    seconds = seconds, images_per_second = recipe.batch / seconds, device = on.name, planned_for = kernels, plan = plan,
    signals = probes,
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

--- Every stage of a recipe.
function M.recipe(recipe, options)
  parameters.check(recipe:validate())
  local list, form = {}, recipe.cache_teacher and teacher_cache.layout(recipe)
  local last = 0 -- the last stage that reads the teacher: its cache is mapped until then
  for k, stage in ipairs(recipe.stages) do last = stage.needs_teacher and k or last end
  for k, stage in ipairs(recipe.stages) do
    list[k] = tensor.tidy(function()
      return M.stage(recipe, stage, { device = options and options.device, kept = form and k <= last and form.fields })
    end)
  end
  return list
end

return M
