--- A whole step, as a run makes it: the stage's program and the update, against PyTorch (tests/oracle/README.md,
--- haste_step), in pieces, recomputed, with other numbers of threads.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local losses = require "perigee.losses"
local models = require "perigee.models"
local optim = require "perigee.optim"
local oracle = require "tests.lua.oracle"
local Run = require "perigee.train.run"
local pg = require "perigee"
local tiny = require "tests.lua.tiny"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor
local fixture, settings = oracle.load "haste_step"

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

--- A run on the fixture's student, teacher and numbers.
local function fixture_run(options)
  options = options or {}
  local s, t = settings.student, settings.teacher
  local precision = options.precision or "float32"
  local dtype = precision == "float64" and "float64" or "float32"
  local batches = options.batches or function(step)
    return {
      latents = fixture.x0, images = fixture.images, labels = fixture.y, time = fixture[("step%d.t"):format(step)]:to(dtype),
      noise = fixture[("step%d.noise"):format(step)]:to(dtype),
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
    for _, entry in ipairs(weights.public_parameters(group, "sit", strip)) do
      entry.parameter:copy_(values[entry.name]:reshape(entry.parameter.shape))
    end
  end
  local projector = recipe:loss_modules().features.projector
  fill(recipe.student, "sit_tiny.weights")
  fill(require("perigee.nn.module").group { projectors = { projector } }, "haste_projector.weights")
  for _, group in ipairs(run.groups) do
    group.average:copy_(group.parameters)
  end
  run:build_stage()
  -- public name -> { group, entry of its layout }
  for _, group in ipairs(run.groups) do
    for _, entry in ipairs(group.layout) do
      local own = group.prefix == "student" and entry.name or "projectors.1." .. entry.name
      public[assert(weights.public_name("sit", own), own)] = { group = group, entry = entry }
    end
  end
  return run, public
end

local function slice(flat, entry) return flat:narrow(1, entry.offset + 1, entry.numel):reshape(entry.shape) end

--- The keys' third of a qkv bias has a gradient of zero in exact arithmetic; AdamW makes noise of it: left out.
local function without_keys(name, t)
  t = t:reshape { t:numel() }
  if not name:match "qkv%.bias$" then return t end
  local width = t.shape[1] / 3
  return ops.concat({ t:narrow(1, 1, width), t:narrow(1, 2 * width + 1, width) }, 1)
end

local function near_all(public, kind, prefix, bound)
  local count = 0
  for name, where in pairs(public) do
    local expected = fixture[prefix .. "." .. name]
    if expected then
      count = count + 1
      local actual = slice(where.group[kind], where.entry)
      oracle.near(prefix .. "." .. name, without_keys(name, actual), without_keys(name, expected), bound)
    end
  end
  return count
end

local function three_steps(options, bound)
  local run, public = fixture_run(options)
  local start = {}
  for _, group in ipairs(run.groups) do start[group] = group.parameters:clone() end
  local total = 0
  for name in pairs(public) do
    total = total + 1
    assert.is_truthy(fixture["grad." .. name], name)
  end
  for step = 1, 3 do
    local found = run:gradients(run:batch())
    for _, name in ipairs { "denoise", "features", "attention" } do
      local expected = fixture[("step%d.%s"):format(step, name)]:totable()[1]
      assert.is_true(math.abs(found[name] - expected) <= bound * math.abs(expected), ("step %d: %s"):format(step, name))
    end
    if step == 1 then assert.equal(total, near_all(public, "gradients", "grad", bound)) end
    local norm = run.update:run(run.optim, run.ema, step)
    local expected = fixture[("step%d.gradient_norm"):format(step)]:totable()[1]
    assert.is_true(math.abs(norm - expected) <= bound * expected, ("step %d: the gradient's norm"):format(step))
    if step == 1 then
      assert.is_true(near_all(public, "parameters", "after1", bound) > 10)
      assert.is_true(near_all(public, "average", "ema1", bound) > 10)
    end
  end
  assert.equal(total, near_all(public, "parameters", "after3", bound))
  assert.equal(total, near_all(public, "average", "ema3", bound))
  assert.is_true(near_all(public, "first_moment", "m3", bound) > 5)
  assert.is_true(near_all(public, "second_moment", "v3", 2 * bound) > 5)
  -- the way that they went, which is short beside them
  for name, where in pairs(public) do
    local before = slice(start[where.group], where.entry)
    oracle.near("after3 - start " .. name, without_keys(name, slice(where.group.parameters, where.entry) - before),
      without_keys(name, fixture["after3." .. name]:reshape(before.shape) - before), 1e-3)
  end
  run:free()
end

describe("a run's step", function()
  it("has PyTorch's losses, gradients, moments, averages and parameters over three steps", function()
    three_steps({}, 1e-5)
  end)

  it("has them in pieces of two, with recomputed blocks", function()
    three_steps({ micro = 2, recompute = true }, 1e-5)
  end)

  it("has them in float64", function() three_steps({ precision = "float64" }, 1e-5) end)
end)
