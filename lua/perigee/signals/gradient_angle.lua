--- The gradient angle: the cosine between the gradients of the weighted alignment losses and of the denoising loss with
--- respect to one block's parameters, at fixed times over random training images (HASTE, arXiv 2505.16792, review thread).
---
--- One pruned program gives both gradients: the forward pass is shared, and what neither loss needs for this block is not
--- in it. Gradients are summed over the images before the cosine is taken.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local op = require "perigee.core.op"
local stage = require "perigee.train.stage"
local ops, tensor = core.ops, core.tensor

local M = {}

---@class perigee.GradientAngleProbe
local Probe = {}
Probe.__index = Probe

local function zeros(count, dtype)
  local t = tensor.empty({ count }, dtype, { purpose = "signal" })
  return t:copy_(ops.fill({ count }, { value = 0, dtype = dtype }))
end

--- The program: batch in, gradients of both losses for the block's parameters out, in two flat vectors.
function M.build(run, block)
  local student = run.recipe.student
  if block < 1 or block > (student.depth or 0) then
    core_ffi.fail("gradient_angle: block %d of a student with %s blocks", block, tostring(student.depth))
  end
  local trace = stage.trace(run.recipe, run.stage, {
    batch = run.micro, fixed_time = true, fixed_noise = run.trace.fixed_noise, drop_labels = false,
  })
  local denoise, alignment
  for _, entry in ipairs(run.stage.losses) do
    local value = trace.losses[entry.name]
    if entry.loss.kind == "flow_matching" then denoise = value
    elseif entry.loss.needs_teacher then
      local weighted = value * trace.weights[entry.name]
      alignment = alignment and alignment + weighted or weighted
    end
  end
  if not denoise or not alignment then
    core_ffi.fail("gradient_angle: the stage '%s' needs a denoising and an alignment loss", run.stage.name)
  end
  local wrt, total = {}, 0
  for _, entry in ipairs(student.blocks[block]:named_parameters()) do
    wrt[#wrt + 1] = { name = entry.name, value = trace.program:capture(entry.tensor), offset = total }
    total = total + entry.tensor:numel()
  end
  local values = {}
  for k, w in ipairs(wrt) do values[k] = w.value end
  local one = tensor.tensor(1, {}, denoise.dtype)
  local outputs, into, flats = {}, {}, {}
  for _, side in ipairs { { "denoise", denoise }, { "alignment", alignment } } do
    local flat = zeros(total, run.recipe.dtype)
    flats[side[1]] = flat
    for k, g in ipairs(core.gradient(trace.program, { side[2] }, { one }, values)) do
      if g then -- a parameter that a loss does not reach keeps its zeros
        local name = side[1] .. " " .. wrt[k].name
        outputs[#outputs + 1] = { name = name, value = g }
        into[name] = flat:narrow(1, wrt[k].offset + 1, wrt[k].value:numel()):reshape(wrt[k].value.shape)
      end
    end
  end
  local executable = core.executable.compile(trace.program, outputs, {
    into = into, purpose = "signal", device = run.device,
  })
  return setmetatable({
    executable = executable, flats = flats,
    sums = { denoise = zeros(total, "float64"), alignment = zeros(total, "float64") },
  }, Probe)
end

function Probe:free()
  self.executable:free()
  for _, list in ipairs { self.flats, self.sums } do
    for _, flat in pairs(list) do flat:free() end
  end
end

--- Σ a·b.
local function dot(a, b)
  return tensor.tidy(function() return (a * b):sum():item() end)
end

--- Sums the gradients over the images at one time; `batch(number)` gives a batch's tensors by name. Returns the cosine, and
--- the norms of the denoising and the alignment gradient.
function Probe:measure(batches, batch)
  for number = 1, batches do
    self.executable:run(batch(number))
    for side, flat in pairs(self.flats) do
      tensor.tidy(function()
        ops.accumulate(self.sums[side], flat:to "float64", { first = number == 1 })
      end)
    end
  end
  local a, d = self.sums.alignment, self.sums.denoise
  local alignment, denoise = math.sqrt(dot(a, a)), math.sqrt(dot(d, d))
  return dot(a, d) / math.max(alignment * denoise, 1e-300), denoise, alignment
end

--- Measures on a run: returns { mean =, cosine = { one a time }, time = {...}, images = }.
function M.measure(run, settings)
  local key = ("gradient_angle %d"):format(settings.block)
  run.probes[key] = run.probes[key] or M.build(run, settings.block)
  local probe = run.probes[key]
  local batches = math.ceil(settings.images / run.micro)
  local cosines, sum = {}, 0
  local stat = op.stat(run.recipe.dtype)
  for k, time in ipairs(settings.time) do
    cosines[k] = tensor.tidy(function()
      local inputs = run:bind_weights { time = ops.fill({ run.micro }, { value = time, dtype = stat }), state = run.state }
      return (probe:measure(batches, function(number)
        run:set_state(run.step, (number - 1) * run.micro)
        for name, t in pairs(run:probe_batch(number, run.micro)) do inputs[name] = t end
        return inputs
      end))
    end)
    sum = sum + cosines[k]
  end
  return { mean = sum / #settings.time, cosine = cosines, time = settings.time, images = batches * run.micro }
end

return M
