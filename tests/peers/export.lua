--- Writes what a peer needs to do the same work, and what it must find: FOLDER/config.json, weights.safetensors, and
--- for each stage STAGE.safetensors with a batch, times and noise, losses and every gradient. Names are those of public
--- checkpoints. DEVICE computes them: on a GPU a large model takes seconds, and a peer is held against the GPU's own
--- gradients. STAGES: haste,free; the first is exported in any case, for its weights and pictures.
---
---   perigee run tests/peers/export.lua RECIPE FOLDER DEVICE STAGES [the recipe's options]
local core = require "perigee.core"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local profile = require "perigee.bench.profile"
local load = require("perigee.recipe.load").load
local public = require "perigee.io.weights"
local safetensors = require "perigee.io.safetensors"
local ops, tensor = core.ops, core.tensor

local SPREAD = 0.02 -- standard deviation of what is added to every weight: SiT's zero layers would hide wrong gradients

local path, folder, device, stages = arg[1], arg[2], arg[3], {}
if not arg[4] then
  error("usage: perigee run tests/peers/export.lua RECIPE FOLDER DEVICE STAGES [the recipe's options]", 0)
end
for name in arg[4]:gmatch "[^,]+" do stages[name] = true end
local function read() return load(path, { arguments = { unpack(arg, 5) } }).value end
files.make_folder(folder)

local function draw(shape, purpose, how)
  return ops[how or "random_normal"](shape, { state = tensor.tensor({ 1, 0, 0 }, "int64"), purpose = purpose })
end

local function save(file, tensors)
  for name, t in pairs(tensors) do tensors[name] = t:to "cpu" end
  safetensors.save(file, tensors)
end

--- A group's tensors of one kind by public name, in public shapes.
local function named(group, flat, into, prefix)
  local strip = group.prefix == "student" and "" or "projectors.1."
  local parameters = group.module:parameters()
  for _, entry in ipairs(group.layout) do
    local t = flat:narrow(1, entry.offset + 1, entry.numel)
    into[prefix .. public.public_name("repa", strip .. entry.name)] =
      t:reshape(rawget(parameters[entry.name], "public_shape") or entry.shape):clone()
  end
end

local function config(recipe)
  local s, t, losses = recipe.student, recipe.teacher, {}
  for _, stage in ipairs(recipe.stages) do
    losses[stage.name] = {}
    for _, entry in ipairs(stage.losses) do
      losses[stage.name][entry.name] = { weight = entry.weight, settings = entry.loss.settings }
    end
  end
  return {
    batch = recipe.batch, losses = losses, precision = recipe.precision, drop_label = s.drop_label, ema = recipe.ema,
    optimizer = { lr = recipe.optim.lr, betas = recipe.optim.betas, eps = recipe.optim.epsilon,
                  decay = recipe.optim.decay, clip = recipe.optim.clip },
    student = { width = s.width, depth = s.depth, heads = s.heads, patch = s.patch, channels = s.channels,
                height = s.size[1], columns = s.size[2], classes = s.classes },
    teacher = { width = t.width, depth = t.depth, heads = t.heads, patch = t.patch,
                image = t:grid_for(s.grid)[1] * t.patch, stored_grid = t.stored[1], registers = t.registers,
                layerscale = t.settings.layer_scale, statistics = { t.settings.mean, t.settings.std } },
  }
end

local function teacher_weights(recipe, into)
  for _, entry in ipairs(public.public_parameters(recipe.teacher,
    recipe.teacher.settings.layer_scale and "dinov2" or "timm")) do
    into["teacher." .. entry.name] = entry.parameter:to("float32"):reshape(entry.shape)
  end
end

local function export(number)
  local recipe = read()
  local run = profile.open(recipe, {
    synthetic = true, device = device, stage = number,
    trace = { fixed_time = true, fixed_noise = true, drop_labels = false },
  })
  tensor.tidy(function()
    for _, group in ipairs(run.groups) do
      group.parameters:copy_(group.parameters:to "cpu" + draw({ group.count }, group.prefix) * SPREAD)
      group:refresh()
    end
    if number == 1 then
      local weights = {}
      for _, group in ipairs(run.groups) do named(group, group.parameters, weights, "") end
      teacher_weights(recipe, weights)
      save(folder .. "/weights.safetensors", weights)
      json.write(folder .. "/config.json", config(recipe))
    end
    local s, out, batch, read_by_program = recipe.student, {}, {}, {}
    for _, slot in ipairs(run.plan.slots) do read_by_program[slot.name] = true end
    for name, t in pairs(run:batch()) do
      batch[name] = t
      if read_by_program[name] then out[name] = t end
    end
    batch.time = draw({ recipe.batch }, "time", "random_uniform")
    batch.noise = draw({ recipe.batch, s.channels, s.size[1], s.size[2] }, "noise"):to(recipe.dtype)
    out.time, out.noise = batch.time, batch.noise:to "float32"
    for name, t in pairs(batch) do batch[name] = t:to(device) end
    run:advance(nil, batch)
    run:collect(0)
    for name, value in pairs(run.losses) do
      out["loss." .. name] = tensor.tensor({ value }, "float64")
    end
    for _, group in ipairs(run.active_groups) do named(group, group.gradients, out, "gradient.") end
    save(("%s/%s.safetensors"):format(folder, run.stage.name), out)
  end)
  run:free()
end

for number, stage in ipairs(read().stages) do
  if number == 1 or stages[stage.name] then export(number) end
end
