--- The gradient angle: the cosine between the gradients of the weighted alignment losses and of the denoising loss with
--- respect to one block's parameters, at fixed times over random training images (HASTE, arXiv 2505.16792, review
--- thread).
---
--- One pruned program gives both gradients, of one block or of several: the forward pass is shared, and what neither
--- loss needs for these blocks is not in it. Gradients are summed over the images before the cosine is taken.
---
--- With `ema` the moving averages stand for the weights: without the jitter of single steps the angle is far steadier
--- (docs/experiments.md).
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local is_frozen = require("perigee.nn.module").is_frozen
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local stage_program = require "perigee.stage.program"
local ops, tensor = core.ops, core.tensor

local M = {}

---@class perigee.GradientAngleProbe
local Probe = {}
Probe.__index = Probe

local function zeros(count, dtype, device)
  return tensor.empty({ count }, dtype, { purpose = "signal", device = device }):fill_(0)
end

--- Which side of the angle a loss is on: "denoise", "alignment" or nil.
local function side_of(loss)
  return loss.is_denoising and "denoise" or loss.needs_teacher and "alignment" or nil
end

--- An error unless the angle exists in a stage: it takes losses on both sides, and a student that has the block.
function M.check(stage, student, block)
  local found = {}
  for _, entry in ipairs(stage.losses) do found[side_of(entry.loss) or "neither"] = true end
  if not found.denoise or not found.alignment then
    core_ffi.fail("gradient_angle: the stage '%s' needs a denoising and an alignment loss", stage.name)
  end
  if block > (student.blocks and student.depth or 0) then
    core_ffi.fail("gradient_angle: block %d of a student with %d blocks", block, student.blocks and student.depth or 0)
  end
end

--- The losses whose gradients are compared: the denoising loss, and the sum of the weighted alignment losses.
local function sides(run, trace)
  local found = {}
  for _, entry in ipairs(run.stage.losses) do
    local side, value = side_of(entry.loss), trace.losses[entry.name]
    if side == "denoise" then found.denoise = value
    elseif side then
      local weighted = value * trace.weights[entry.name]
      found.alignment = found.alignment and found.alignment + weighted or weighted
    end
  end
  return found
end

--- The trained parameters of some blocks as a program's values: lists of values and of their places { block, name,
--- offset } in their block's flat vector, and the length of each block's vector.
local function parameters_of(program, student, blocks)
  local values, places, totals = {}, {}, {}
  for number, block in ipairs(blocks) do
    totals[number] = 0
    for _, entry in ipairs(student.blocks[block]:named_parameters()) do
      if not is_frozen(entry.tensor) then
        values[#values + 1] = program:capture(entry.tensor)
        places[#places + 1] = { block = number, name = ("block %d %s"):format(block, entry.name),
          offset = totals[number] }
        totals[number] = totals[number] + entry.tensor:numel()
      end
    end
    if totals[number] == 0 then core_ffi.fail("gradient_angle: block %d has no parameter that trains", block) end
  end
  return values, places, totals
end

--- The program, planned: a batch in, the gradients of both sides for the blocks' parameters out. `places` lists where
--- each output goes in the flat vector of its block and side; `totals` holds their lengths. Of a run this reads recipe,
--- stage, micro, trace and device.
local function planned(run, blocks)
  local trace = stage_program.trace(run.recipe, run.stage, {
    batch = run.micro, fixed_time = true, fixed_noise = run.trace.fixed_noise, drop_labels = false,
  })
  local values, parameters, totals = parameters_of(trace.program, run.recipe.student, blocks)
  local outputs, places = {}, {}
  local losses = sides(run, trace)
  for _, side in ipairs { "denoise", "alignment" } do
    local loss = losses[side]
    local one = tensor.tensor(1, {}, loss.dtype)
    for k, g in ipairs(core.gradient(trace.program, { loss }, { one }, values)) do
      if g then -- a parameter that a loss does not reach keeps its zeros
        local place = parameters[k]
        local name = side .. " " .. place.name
        outputs[#outputs + 1] = { name = name, value = g }
        places[#places + 1] = { name = name, block = place.block, side = side, offset = place.offset,
          shape = values[k].shape }
      end
    end
  end
  return core.plan.build(trace.program, outputs, { device = run.device }), places, totals
end

--- The cost of a measurement: `calls` and `flops` of one batch of `micro` images at one time, and the `bytes` that it
--- takes on the run's device in addition to a step's: arena, both sides' gradients, and on the CPU, where they are
--- added up, their sums and one converted; `averages`: bytes of those of the weights, where they have to be made.
---@return { bytes: number, flops: number, calls: table[] }
function M.price(run, blocks, averages)
  local plan, _, totals = planned(run, blocks)
  local bytes, sums, most = plan.arena_bytes + averages, 0, 0
  for _, total in ipairs(totals) do
    bytes, sums = bytes + total * 2 * core_ffi.dtype_bytes[run.recipe.dtype], sums + total * 2 * 8
    most = math.max(most, total)
  end
  if run.device == "cpu" then bytes = bytes + sums + most * 8 end
  return { bytes = bytes, flops = plan:cost().flops, calls = plan.calls }
end

--- A probe of the blocks in a list, whose numbers count from 1; with `ema` at the weights' moving averages.
---@param blocks integer[]
---@param ema? boolean
---@return perigee.GradientAngleProbe
function M.build(run, blocks, ema)
  local plan, places, totals = planned(run, blocks)
  local parts, into = {}, {}
  for k, total in ipairs(totals) do
    parts[k] = {}
    for _, side in ipairs { "denoise", "alignment" } do
      parts[k][side] = { flat = zeros(total, run.recipe.dtype, run.device), sum = zeros(total, "float64") }
    end
  end
  for _, place in ipairs(places) do
    local flat = parts[place.block][place.side].flat
    into[place.name] = flat:narrow(1, place.offset + 1, layout.numel(place.shape)):reshape(place.shape)
  end
  local averages, made = {}, {}
  for _, group in ipairs(ema and run.groups or {}) do
    local views, flat = group:averages()
    for parameter, average in pairs(views) do averages[parameter] = average end
    made[#made + 1] = flat or nil
  end
  return setmetatable({
    executable = core.executable.new(plan, { into = into, captures = averages, purpose = "signal" }), parts = parts,
    made = made,
  }, Probe)
end

function Probe:free()
  self.executable:free()
  for _, flat in ipairs(self.made) do flat:free() end
  for _, part in ipairs(self.parts) do
    for _, side in pairs(part) do
      side.flat:free()
      side.sum:free()
    end
  end
end

--- Σ a·b.
local function dot(a, b)
  return tensor.tidy(function() return (a * b):sum():item() end)
end

--- Sums the gradients over the images at one time; `batch(number)` gives a batch's tensors by name. Returns for each
--- block { cosine =, and the norms of both gradients: denoise =, alignment = }.
function Probe:measure(batches, batch)
  for number = 1, batches do
    self.executable:run(batch(number))
    for _, part in ipairs(self.parts) do
      for _, side in pairs(part) do
        tensor.tidy(function() ops.accumulate(side.sum, side.flat:to("cpu"):to "float64", { first = number == 1 }) end)
      end
    end
  end
  local readings = {}
  for k, part in ipairs(self.parts) do
    local a, d = part.alignment.sum, part.denoise.sum
    local alignment, denoise = math.sqrt(dot(a, a)), math.sqrt(dot(d, d))
    readings[k] = { cosine = dot(a, d) / math.max(alignment * denoise, 1e-300), denoise = denoise,
      alignment = alignment }
  end
  return readings
end

--- Measures several blocks on a run at the times and with the images of `settings`. Returns for each
--- { mean =, cosine = { one a time }, time = {...}, images = }. Its memory is held only as long.
---@param blocks integer[]
---@param settings { time: number[], images: integer, ema?: boolean }
function M.measure(run, blocks, settings)
  local probe = M.build(run, blocks, settings.ema)
  local batches, size = math.ceil(settings.images / run.micro), run.micro
  local loader = run:probe_loader(size)
  local values = {}
  for number = 1, #blocks do
    values[number] = { mean = 0, cosine = {}, time = settings.time, images = batches * size }
  end
  local fine, message = pcall(tensor.tidy, function()
    for k, time in ipairs(settings.time) do
      local inputs = run:bind_weights {
        time = ops.fill({ size }, { value = time, dtype = op.stat(run.recipe.dtype) }):to(run.device),
        state = run.random_state,
      }
      local readings = probe:measure(batches, function(number)
        run:set_random_state(run.step, (number - 1) * size)
        loader:seek(number - 1)
        for name, t in pairs(loader:next()) do inputs[name] = t end
        return inputs
      end)
      for number, value in ipairs(values) do
        value.cosine[k] = readings[number].cosine
        value.mean = value.mean + value.cosine[k] / #settings.time
      end
    end
  end)
  probe:free()
  loader:close()
  if not fine then error(message, 0) end
  return values
end

return M
