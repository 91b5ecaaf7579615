--- The gradient angle: the cosine between the gradients of the weighted alignment losses and of the denoising loss with
--- respect to one block's parameters, at fixed times over random training images (HASTE, arXiv 2505.16792, review thread).
---
--- One pruned program gives both gradients: the forward pass is shared, and what neither loss needs for this block is not
--- in it. Gradients are summed over the images before the cosine is taken.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local stage = require "perigee.train.stage"
local ops, tensor = core.ops, core.tensor

local M = {}

---@class perigee.GradientAngleProbe
local Probe = {}
Probe.__index = Probe

local function zeros(count, dtype)
  local t = tensor.empty({ count }, dtype, { purpose = "signal" })
  return tensor.tidy(function() return t:copy_(ops.fill({ count }, { value = 0, dtype = dtype })) end)
end

--- The losses whose gradients are compared: the denoising loss, and the sum of the weighted alignment losses.
local function sides(run, trace)
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
  return { denoise = denoise, alignment = alignment }
end

--- The program, planned: a batch in, the gradients of both sides for the block's parameters out. `places` lists where each
--- output goes in its side's flat vector of `total` elements. Of a run this reads recipe, stage, micro, trace and device.
local function planned(run, block)
  local student = run.recipe.student
  if block < 1 or block > (student.depth or 0) then
    core_ffi.fail("gradient_angle: block %d of a student with %s blocks", block, tostring(student.depth))
  end
  local trace = stage.trace(run.recipe, run.stage, {
    batch = run.micro, fixed_time = true, fixed_noise = run.trace.fixed_noise, drop_labels = false,
  })
  local values, names, offsets, total = {}, {}, {}, 0
  for k, entry in ipairs(student.blocks[block]:named_parameters()) do
    values[k], names[k], offsets[k] = trace.program:capture(entry.tensor), entry.name, total
    total = total + entry.tensor:numel()
  end
  local outputs, places = {}, {}
  local losses = sides(run, trace)
  for _, side in ipairs { "denoise", "alignment" } do
    local loss = losses[side]
    local one = tensor.tensor(1, {}, loss.dtype)
    for k, g in ipairs(core.gradient(trace.program, { loss }, { one }, values)) do
      if g then -- a parameter that a loss does not reach keeps its zeros
        outputs[#outputs + 1] = { name = side .. " " .. names[k], value = g }
        places[#places + 1] = { name = side .. " " .. names[k], side = side, offset = offsets[k], shape = values[k].shape }
      end
    end
  end
  return core.plan.build(trace.program, outputs, { device = run.device }), places, total
end

--- Bytes that a measurement takes beside a step's: arena, both sides' gradients, their sums, and one converted.
function M.bytes(run, block)
  local plan, _, total = planned(run, block)
  return plan.arena_bytes + total * (2 * core_ffi.dtype_bytes[run.recipe.dtype] + 3 * 8)
end

---@return perigee.GradientAngleProbe
function M.build(run, block)
  local plan, places, total = planned(run, block)
  local flats, into = { denoise = zeros(total, run.recipe.dtype), alignment = zeros(total, run.recipe.dtype) }, {}
  for _, place in ipairs(places) do
    into[place.name] = flats[place.side]:narrow(1, place.offset + 1, layout.numel(place.shape)):reshape(place.shape)
  end
  return setmetatable({
    executable = core.executable.new(plan, { into = into, purpose = "signal" }), flats = flats,
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

--- Measures on a run: returns { mean =, cosine = { one a time }, time = {...}, images = }. Its memory is held only as long.
function M.measure(run, settings)
  local probe = M.build(run, settings.block)
  local batches, size = math.ceil(settings.images / run.micro), run.micro
  local loader = run:probe_loader(size)
  local cosines, sum = {}, 0
  local fine, message = pcall(tensor.tidy, function()
    for k, time in ipairs(settings.time) do
      local inputs = run:bind_weights {
        time = ops.fill({ size }, { value = time, dtype = op.stat(run.recipe.dtype) }), state = run.state,
      }
      cosines[k] = probe:measure(batches, function(number)
        run:set_state(run.step, (number - 1) * size)
        loader:seek(number - 1)
        for name, t in pairs(loader:next()) do inputs[name] = t end
        return inputs
      end)
      sum = sum + cosines[k]
    end
  end)
  probe:free()
  loader:close()
  if not fine then error(message, 0) end
  return { mean = sum / #settings.time, cosine = cosines, time = settings.time, images = batches * size }
end

return M
