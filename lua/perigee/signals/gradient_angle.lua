--- The gradient angle: the cosine between the gradients of the weighted alignment losses and of the denoising loss with
--- respect to one block's parameters, at fixed times over random training images (HASTE, arXiv 2505.16792, review thread).
---
--- One pruned program gives both gradients: the forward pass is shared, and what neither loss needs for this block is not
--- in it. Gradients are summed over the images before the cosine is taken.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local ops, tensor = core.ops, core.tensor

local M = {}

--- The program: batch in, gradients of both losses for the block's parameters out, in two flat vectors.
local function build(run, settings)
  local trace = require("perigee.train.stage").trace(run.recipe, run.stage, { batch = run.micro, fixed_time = true, drop_labels = false })
  local student = run.recipe.student
  if settings.block < 1 or settings.block > (student.depth or 0) then
    core_ffi.fail("gradient_angle: block %d of a student with %s blocks", settings.block, tostring(student.depth))
  end
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
  for _, entry in ipairs(student.blocks[settings.block]:named_parameters()) do
    wrt[#wrt + 1] = { name = entry.name, value = trace.program:capture(entry.tensor), offset = total }
    total = total + entry.tensor:numel()
  end
  local values = {}
  for k, w in ipairs(wrt) do values[k] = w.value end
  local one = tensor.tensor(1, {}, denoise.dtype)
  local outputs, into, flats = {}, {}, {}
  for _, side in ipairs { { "denoise", denoise }, { "alignment", alignment } } do
    local flat = tensor.empty({ total }, student.dtype, { purpose = "signal" })
    flat:copy_(ops.fill({ total }, { value = 0, dtype = student.dtype }))
    flats[side[1]] = flat
    for k, g in ipairs(core.gradient(trace.program, { side[2] }, { one }, values)) do
      if g then -- a parameter that a loss does not reach keeps its zeros
        local name = side[1] .. " " .. wrt[k].name
        outputs[#outputs + 1] = { name = name, value = g }
        into[name] = flat:narrow(1, wrt[k].offset + 1, wrt[k].value:numel()):reshape(wrt[k].value.shape)
      end
    end
  end
  return { executable = core.executable.compile(trace.program, outputs, { into = into, purpose = "signal" }), flats = flats }
end

local function dot(a, b) return (a * b):sum():item() end

--- Measures on a run: returns { mean =, cosine = { one a time }, time = {...}, images = }.
function M.measure(run, settings)
  local key = table.concat({ run.stage.index, settings.block }, " ")
  run.probes[key] = run.probes[key] or build(run, settings)
  local probe = run.probes[key]
  local batches = math.ceil(settings.images / run.micro)
  local cosines, sum = {}, 0
  for k, time in ipairs(settings.time) do
    local cosine = tensor.tidy(function()
      local t = ops.fill({ run.micro }, { value = time, dtype = "float32" })
      local total = {}
      for b = 1, batches do
        local batch = run:probe_batch(b, run.micro)
        batch.time = t
        batch.state = tensor.tensor({ run.recipe.seed, run.step, (b - 1) * run.micro }, "int64")
        run:bind_weights(batch)
        probe.executable:run(batch)
        for side, flat in pairs(probe.flats) do
          local wide = flat:to "float64"
          total[side] = total[side] and total[side] + wide or wide
        end
      end
      local a, d = total.alignment, total.denoise
      return dot(a, d) / math.max(math.sqrt(dot(a, a) * dot(d, d)), 1e-300)
    end)
    cosines[k] = cosine
    sum = sum + cosine
  end
  return { mean = sum / #settings.time, cosine = cosines, time = settings.time, images = batches * run.micro }
end

return M
