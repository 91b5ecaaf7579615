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

--- An error unless a student has the block.
function M.check_block(what, student, block)
  if block > (student.blocks and student.depth or 0) then
    core_ffi.fail("%s: block %d of a student with %d blocks", what, block, student.blocks and student.depth or 0)
  end
end

--- An error unless the angle exists in a stage: it takes losses on both sides, and a student that has the block.
function M.check(stage, student, block)
  local found = {}
  for _, entry in ipairs(stage.losses) do found[side_of(entry.loss) or "neither"] = true end
  if not found.denoise or not found.alignment then
    core_ffi.fail("gradient_angle: the stage '%s' needs a denoising and an alignment loss", stage.name)
  end
  M.check_block("gradient_angle", student, block)
end

--- The losses whose gradients are compared, by side: the denoising loss and the weighted alignment, as one sum or each
--- loss by itself under its name. The second result lists the sides' names, the denoising one first.
---@return table<string, perigee.Value> losses, string[] names
local function sides(run, trace, each)
  local found, names = {}, { "denoise" }
  for _, entry in ipairs(run.stage.losses) do
    local side, value = side_of(entry.loss), trace.losses[entry.name]
    if side == "denoise" then found.denoise = value
    elseif side then
      local name, weighted = each and entry.name or "alignment", value * trace.weights[entry.name]
      if not found[name] then names[#names + 1] = name end
      found[name] = found[name] and found[name] + weighted or weighted
    end
  end
  return found, names
end

local PARTS = { all = "", attention = "attention.", mlp = "mlp." } -- how their parameters' names begin

--- The trained parameters of some blocks as a program's values: lists of values and of their places { block, name,
--- offset } in their block's flat vector, and the length of each block's vector. `which`: "all", "attention" or "mlp".
local function parameters_of(program, student, blocks, which)
  local values, places, totals = {}, {}, {}
  local beginning = PARTS[which or "all"]
  for number, block in ipairs(blocks) do
    totals[number] = 0
    for _, entry in ipairs(student.blocks[block]:named_parameters()) do
      if not is_frozen(entry.tensor) and entry.name:sub(1, #beginning) == beginning then
        values[#values + 1] = program:capture(entry.tensor)
        places[#places + 1] = { block = number, name = ("block %d %s"):format(block, entry.name),
          offset = totals[number] }
        totals[number] = totals[number] + entry.tensor:numel()
      end
    end
    if totals[number] == 0 then
      core_ffi.fail("gradient_angle: block %d has no parameter%s that trains", block,
        beginning ~= "" and (" '%s*'"):format(beginning) or "")
    end
  end
  return values, places, totals
end

--- What a probe takes the gradients of, and where.
---@class perigee.ProbeOptions
---@field blocks integer[]                        from 1
---@field parameters? "all"|"attention"|"mlp"     of each block: all
---@field each? boolean                           each alignment loss by itself in addition to their sum
---@field drawn? boolean                          at times drawn as in training, instead of an input `time`
---@field ema? boolean                            at the weights' moving averages

--- The program, planned: a batch in, the gradients of all sides for the blocks' parameters out. `places` lists where
--- each output goes in the flat vector of its block and side; `totals` holds their lengths. Of a run this reads recipe,
--- stage, micro, trace and device.
---@param options perigee.ProbeOptions
local function planned(run, options)
  local trace = stage_program.trace(run.recipe, run.stage, {
    batch = run.micro, fixed_time = not options.drawn, fixed_noise = run.trace.fixed_noise, drop_labels = false,
  })
  local values, parameters, totals = parameters_of(trace.program, run.recipe.student, options.blocks,
    options.parameters)
  local outputs, places = {}, {}
  local losses, names = sides(run, trace, options.each)
  for _, side in ipairs(names) do
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
  return core.plan.build(trace.program, outputs, { device = run.device }), places, totals, names
end

--- The cost of a measurement: `calls` and `flops` of one batch of `micro` images at one time, and the `bytes` that it
--- takes on the run's device in addition to a step's: arena, the sides' gradients, and on the CPU, where they are added
--- up, their sums and one converted; `averages`: bytes of those of the weights, where they have to be made.
---@param options perigee.ProbeOptions
---@return { bytes: number, flops: number, calls: table[] }
function M.price(run, options, averages)
  local plan, _, totals, names = planned(run, options)
  local bytes, sums, most = plan.arena_bytes + averages, 0, 0
  for _, total in ipairs(totals) do
    bytes = bytes + total * #names * core_ffi.dtype_bytes[run.recipe.dtype]
    sums = sums + total * #names * 8
    most = math.max(most, total)
  end
  if run.device == "cpu" then bytes = bytes + sums + most * 8 end
  return { bytes = bytes, flops = plan:cost().flops, calls = plan.calls }
end

---@param options perigee.ProbeOptions
---@return perigee.GradientAngleProbe
function M.build(run, options)
  local plan, places, totals, names = planned(run, options)
  local parts, into = {}, {}
  for k, total in ipairs(totals) do
    parts[k] = {}
    for _, side in ipairs(names) do
      parts[k][side] = { flat = zeros(total, run.recipe.dtype, run.device), sum = zeros(total, "float64") }
    end
  end
  for _, place in ipairs(places) do
    local flat = parts[place.block][place.side].flat
    into[place.name] = flat:narrow(1, place.offset + 1, layout.numel(place.shape)):reshape(place.shape)
  end
  local averages, made = {}, {}
  for _, group in ipairs(options.ema and run.groups or {}) do
    local views, flat = group:averages()
    for parameter, average in pairs(views) do averages[parameter] = average end
    made[#made + 1] = flat or nil
  end
  return setmetatable({
    executable = core.executable.new(plan, { into = into, captures = averages, purpose = "signal" }), parts = parts,
    made = made, names = names,
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

--- Sums the gradients over the images of so many batches; `batch(number)` gives a batch's tensors by name. They lie in
--- `self.parts`, a block's sides by name: { sum = float64 [n] }.
function Probe:sum(batches, batch)
  for number = 1, batches do
    self.executable:run(batch(number))
    for _, part in ipairs(self.parts) do
      for _, side in pairs(part) do
        tensor.tidy(function() ops.accumulate(side.sum, side.flat:to("cpu"):to "float64", { first = number == 1 }) end)
      end
    end
  end
end

--- The norm of a vector.
---@return number
function M.norm(a) return math.sqrt(dot(a, a)) end

--- The cosine of two vectors; nil where one of them is zero, so that there is no angle.
---@return number? cosine, number norm_a, number norm_b
function M.cosine(a, b)
  local norm_a, norm_b = M.norm(a), M.norm(b)
  if norm_a == 0 or norm_b == 0 then return nil, norm_a, norm_b end
  return dot(a, b) / math.max(norm_a * norm_b, 1e-300), norm_a, norm_b
end

--- The reading of one block: { cosine =, denoise =, alignment = the norms of both gradients }, and where each alignment
--- loss was asked for by itself, `by`: the same of each, by name.
local function reading_of(part, names)
  local whole, by = part.alignment and part.alignment.sum, nil
  if not whole then -- each loss by itself: the whole is their sum
    by = {}
    for k = 2, #names do
      local sum = part[names[k]].sum
      local cosine, norm, denoise = M.cosine(sum, part.denoise.sum)
      by[names[k]] = { cosine = cosine, alignment = norm, denoise = denoise }
      whole = whole and whole + sum or sum
    end
  end
  local cosine, alignment, denoise = M.cosine(whole, part.denoise.sum)
  return { cosine = cosine, denoise = denoise, alignment = alignment, by = by }
end

--- Sums as Probe:sum does, and returns for each block its reading.
function Probe:measure(batches, batch)
  self:sum(batches, batch)
  return tensor.tidy(function()
    local readings = {}
    for k, part in ipairs(self.parts) do readings[k] = reading_of(part, self.names) end
    return readings
  end)
end

--- Builds a probe, calls `body(probe, batches, batch)` with random training images for it, and frees it.
--- `batch(inputs)` gives the function that Probe:sum takes. `how.held`: a probe that was built before, with the same
--- options; `how.keep`: it is not freed, but returned.
---@param options perigee.ProbeOptions
---@param images integer
---@param how? { held?: perigee.GradientAngleProbe, keep?: boolean }
---@return perigee.GradientAngleProbe?
function M.with(run, options, images, body, how)
  local probe = how and how.held or M.build(run, options)
  local batches, size = math.ceil(images / run.micro), run.micro
  local loader = run:probe_loader(size)
  local function batch(inputs)
    return function(number)
      run:set_random_state(run.step, (number - 1) * size)
      loader:seek(number - 1)
      for name, t in pairs(loader:next()) do inputs[name] = t end
      return inputs
    end
  end
  local fine, message = pcall(tensor.tidy, body, probe, batches, batch)
  loader:close()
  local kept = fine and how and how.keep
  if not kept then probe:free() end
  if not fine then error(message, 0) end
  return kept and probe or nil
end

--- One cosine a time, added to a value or to that of one loss: a time without an angle leaves it without a mean.
local function add(value, reading, k, settings)
  if reading.cosine and value.cosine then
    value.cosine[k] = reading.cosine
    value.mean = value.mean + reading.cosine / #settings.time
  elseif not reading.cosine then
    value.undefined = ("at t = %g the gradient of %s is zero"):format(settings.time[k],
      reading.denoise == 0 and "denoising" or "the alignment")
    value.cosine, value.mean = nil, nil
  end
end

local function new_value(settings, images) return { mean = 0, cosine = {}, time = settings.time, images = images } end

--- Measures several blocks on a run at the times and with the images of `settings`. Returns for each
--- { mean =, cosine = { one a time }, time = {...}, images = }, and with `each` also `by`, the same by alignment loss.
--- Where there is no angle, `undefined` says so in place of mean and cosine. Its memory is held only as long.
---@param blocks integer[]
---@param settings { time: number[], images: integer, ema?: boolean, parameters?: string, each?: boolean }
function M.measure(run, blocks, settings)
  local values, images = {}, math.ceil(settings.images / run.micro) * run.micro
  for number = 1, #blocks do values[number] = new_value(settings, images) end
  local options = { blocks = blocks, parameters = settings.parameters, each = settings.each, ema = settings.ema }
  M.with(run, options, settings.images, function(probe, batches, batch)
    for k, time in ipairs(settings.time) do
      local readings = probe:measure(batches, batch(run:bind_weights {
        time = ops.fill({ run.micro }, { value = time, dtype = op.stat(run.recipe.dtype) }):to(run.device),
        state = run.random_state,
      }))
      for number, value in ipairs(values) do
        add(value, readings[number], k, settings)
        for name, reading in pairs(readings[number].by or {}) do
          value.by = value.by or {}
          value.by[name] = value.by[name] or new_value(settings)
          add(value.by[name], reading, k, settings)
        end
      end
    end
  end)
  for _, value in ipairs(values) do
    for _, one in pairs(value.by or {}) do one.time = nil end -- as of the whole
  end
  return values
end

return M
