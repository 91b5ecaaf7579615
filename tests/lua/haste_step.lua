--- The step of PyTorch's fixture haste_step (tests/oracle/README.md) as a run of ours.
local joined = require "tests.lua.joined"
local losses = require "perigee.losses"
local models = require "perigee.models"
local optim = require "perigee.optim"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local Run = require "perigee.train.run"
local weights = require "perigee.io.weights"

local fixture, settings = oracle.load "haste_step"
local M = { fixture = fixture }

--- A data set that gives what the fixture gives: x0, pixels, labels, times and noise of step N as a batch.
local function data(batches)
  local first = batches(1)
  local fields = {}
  for _, name in ipairs { "latents", "labels", "images" } do
    local shape = { unpack(first[name].shape, 2) }
    fields[#fields + 1] = { name = name, dtype = first[name].dtype, shape = shape }
  end
  return {
    name = "fixture", batch = first.latents.shape[1], classes = settings.student.classes,
    fields = function() return fields end,
    latents = function(_, batch, _, dtype) return batch.latents:to(dtype) end,
    pixels = function(_, batch, dtype) return batch.images:to(dtype) end,
    open = function() end,
    loader = function()
      local step = 0
      return {
        next = function()
          step = step + 1
          return batches(step)
        end,
        want = function() end, seek = function() end, close = function() end,
      }
    end,
  }
end

--- A run on the fixture's student, teacher and numbers, and its trained tensors by their public names, each
--- { group =, entry = } with the entry of the group's layout. Options: precision, micro, recompute, path, and
--- batches(step), which gives other batches than the fixture's.
function M.run(options)
  options = options or {}
  local s, t = settings.student, settings.teacher
  local precision = options.precision or "float32"
  local dtype = precision == "float64" and "float64" or "float32"
  local batches = options.batches or function(step)
    return {
      latents = fixture.x0, images = fixture.images, labels = fixture.y,
      time = fixture[("step%d.t"):format(step)]:to(dtype), noise = fixture[("step%d.noise"):format(step)]:to(dtype),
    }
  end
  local recipe = pg.recipe {
    name = "fixture", precision = precision,
    student = models.sit { depth = s.depth, width = s.width, heads = s.heads, patch = s.patch, channels = s.channels,
      size = { s.height, s.columns }, classes = s.classes, recompute = options.recompute },
    teacher = models.vit { depth = t.depth, width = t.width, heads = t.heads, patch = t.patch, image = t.image,
      stored = t.stored_grid, layer_scale = t.layerscale, mean = t.statistics[1], std = t.statistics[2],
      weights = oracle.path "haste_teacher.weights" },
    data = data(batches), micro = options.micro,
    optim = optim.adamw { lr = 1e-3, decay = 0.01, clip = 1 }, ema = 0.99,
    stages = { { name = "align",
      losses = {
        { 1, losses.flow_matching { path = options.path or "linear" } },
        { 0.5, losses.feature_alignment { block = settings.feature_block, hidden = 40 } },
        { 0.5, losses.attention_alignment { student = settings.student_blocks, teacher = settings.teacher_blocks } },
      },
      finish = pg.stop.at_step(3) } },
  }
  local run = Run.new(recipe, { trace = { fixed_time = true, fixed_noise = true, drop_labels = false } })
  local public = {}
  local function fill(group, file, strip)
    local values = oracle.load(file)
    for _, entry in ipairs(weights.public_parameters(group, "repa", strip)) do
      entry.parameter:copy_(values[entry.name]:reshape(entry.parameter.shape))
    end
  end
  local projector = recipe:loss_modules().features.projector
  fill(recipe.student, "sit_tiny.weights")
  fill(joined { projectors = { projector } }, "haste_projector.weights")
  for _, group in ipairs(run.groups) do
    group.average:copy_(group.parameters)
  end
  run:build_stage()
  for _, group in ipairs(run.groups) do
    for _, entry in ipairs(group.layout) do
      local own = group.prefix == "student" and entry.name or "projectors.1." .. entry.name
      public[assert(weights.public_name("repa", own), own)] = { group = group, entry = entry }
    end
  end
  return run, public
end

return M
