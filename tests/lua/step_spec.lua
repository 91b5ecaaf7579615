--- A whole step, as a run makes it: the stage's program and the update, against PyTorch (tests/oracle/README.md,
--- haste_step), in pieces, recomputed, with other numbers of threads.
local joined = require "tests.lua.joined"
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
    for _, entry in ipairs(weights.public_parameters(group, "sit", strip)) do
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
    run:advance()
    for _, name in ipairs { "denoise", "features", "attention" } do
      local expected = fixture[("step%d.%s"):format(step, name)]:totable()[1]
      assert.is_true(math.abs(run.losses[name] - expected) <= bound * math.abs(expected),
        ("step %d: %s"):format(step, name))
    end
    if step == 1 then assert.equal(total, near_all(public, "gradients", "grad", bound)) end
    local expected = fixture[("step%d.gradient_norm"):format(step)]:totable()[1]
    assert.is_true(math.abs(run.gradient_norm - expected) <= bound * expected,
      ("step %d: the gradient's norm"):format(step))
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

--- All gradients of a tiny run's first steps, as bytes, and its losses; everything it draws, labels dropped and
--- pictures mirrored included.
local function gradients_of(options, how)
  how = how or {}
  door.check(door.C.pg_threads_set(how.threads or 1))
  local run = Run.new(tiny.recipe(options), { trace = how.trace })
  for _, group in ipairs(run.groups) do -- the zero output layers would hide the others' gradients
    local state = tensor.tensor({ 11, 0, 0 }, "int64")
    local noise = ops.random_normal(group.parameters.shape,
      { state = state, purpose = group.prefix, dtype = group.dtype })
    group.parameters:copy_(group.parameters + noise * 0.1)
    group:refresh()
  end
  run:build_stage()
  local found
  for _ = 1, how.steps or 1 do run:advance() end
  found = run.losses
  door.check(door.C.pg_threads_set(1))
  local gradients = {}
  for _, group in ipairs(run.groups) do gradients[group.prefix] = group.gradients:clone() end
  local arena = run.plan.arena_bytes
  run:free()
  return gradients, found, arena
end

local function bytes(t)
  local array, n = tensor.to_host(t)
  return require("ffi").string(array, n * door.dtype_bytes[t.dtype])
end

local function assert_near(expected, actual, bound)
  for name, t in pairs(expected) do oracle.near(name, actual[name], t, bound) end
end

describe("a step", function()
  for _, recompute in ipairs { false, true } do
    it("is the same without fusion" .. (recompute and ", blocks recomputed" or ""), function()
      local options = { precision = "float64", recompute = recompute }
      local fused, losses_fused = gradients_of(options)
      local plain, losses_plain = gradients_of(options, { trace = { fuse = false } })
      assert_near(plain, fused, 1e-12)
      for name, value in pairs(losses_plain) do assert.is_true(math.abs(value - losses_fused[name]) < 1e-12) end
      local single = gradients_of({ recompute = recompute }, { trace = { fuse = false } })
      assert_near(single, (gradients_of { recompute = recompute }))
    end)
  end

  for _, micro in ipairs { 1, 2, 4, 8 } do
    it(("in pieces of %d draws the same numbers and makes the same gradients as in one pass"):format(micro), function()
      local whole, losses_whole = gradients_of { batch = 16, micro = 16, precision = "float64" }
      local pieces, losses_pieces = gradients_of { batch = 16, micro = micro, precision = "float64" }
      assert_near(whole, pieces, 1e-12)
      for name, value in pairs(losses_whole) do assert.is_true(math.abs(value - losses_pieces[name]) < 1e-12, name) end
      local single = gradients_of { batch = 16, micro = 16 }
      assert_near(single, (gradients_of { batch = 16, micro = micro }), 2e-6)
    end)
  end

  for _, precision in ipairs { "float32", "bf16", "float64" } do
    it("with recomputed blocks has the same bits in less memory, " .. precision, function()
      local kept, _, memory = gradients_of { precision = precision, depth = 6, batch = 16, micro = 16 }
      local again, _, less = gradients_of { precision = precision, depth = 6, batch = 16, micro = 16, recompute = true }
      for name, t in pairs(kept) do assert.is_true(bytes(t) == bytes(again[name]), name) end
      assert.is_true(less < 0.7 * memory, ("%d bytes, %d without"):format(less, memory))
    end)

    it("has the same bits with one, two and three threads, " .. precision, function()
      local options = { precision = precision, batch = 16, micro = 8, width = 96 }
      local one = gradients_of(options, { threads = 1, steps = 3 })
      for threads = 2, 3 do
        local several = gradients_of(options, { threads = threads, steps = 3 })
        for name, t in pairs(one) do assert.is_true(bytes(t) == bytes(several[name]), name) end
      end
    end)
  end

  it("takes weights, rate, decay, clip and EMA as inputs: no retrace", function()
    local function change(turn)
      local run = Run.new(tiny.recipe {})
      run:build_stage()
      local program = run.train_step
      run:advance()
      turn(run)
      run:advance()
      local norm = run.gradient_norm
      assert.equal(program, run.train_step)
      local student = run.groups[1]
      local result = bytes(student.parameters) .. bytes(student.average)
      run:free()
      return result, norm
    end
    local plain, plain_norm = change(function() end)
    for _, turn in ipairs {
      function(run) run.optim.lr = 2e-3 end,
      function(run) run.optim.decay = 0.5 end,
      function(run) run.optim.clip = 1e-3 end,
      function(run) run.ema = 0.1 end,
      function(run) run.stage.losses.features.weight = 40 end,
    } do
      local turned, norm = change(turn)
      assert.is_false(turned == plain)
      assert.equal(turn ~= nil, norm ~= nil and plain_norm ~= nil)
    end
  end)
end)

-- ---- the gradient angle ------------------------------------------------------------------------------------------

describe("the gradient angle", function()
  local angle_fixture, angle = oracle.load "gradient_angle"

  local function probe_run(precision)
    local dtype = precision == "float64" and "float64" or "float32"
    local function batch_at(k)
      return {
        latents = angle_fixture.x0, images = angle_fixture.images, labels = angle_fixture.y,
        noise = angle_fixture.noise:select(1, k):contiguous():to(dtype),
        time = ops.fill({ 4 }, { value = angle.times[k], dtype = dtype }),
      }
    end
    local run = fixture_run { precision = precision, batches = function() return batch_at(1) end }
    return run, batch_at
  end

  for _, precision in ipairs { "float64", "float32" } do
    it("is PyTorch's in " .. precision, function()
      local run, batch_at = probe_run(precision)
      local probe = require("perigee.signals.gradient_angle").build(run, { angle.block })
      local bound, sum = precision == "float64" and 1e-7 or 1e-4, 0 -- positions are float32 numbers
      for k = 1, 4 do
        local inputs = run:bind_weights(batch_at(k))
        inputs.state = run.random_state
        local reading = probe:measure(1, function() return inputs end)[1]
        local function expect(what, actual, expected)
          assert.is_true(math.abs(actual - expected) <= bound * math.max(math.abs(expected),
            what == "cosine" and 0.1 or 0),
            ("%s at time %g: %.12g, the fixture has %.12g"):format(what, angle.times[k], actual, expected))
        end
        expect("denoise_norm", reading.denoise, angle_fixture.denoise_norm:totable()[k])
        expect("alignment_norm", reading.alignment, angle_fixture.alignment_norm:totable()[k])
        expect("cosine", reading.cosine, angle_fixture.cosine:totable()[k])
        sum = sum + reading.cosine
      end
      assert.is_true(math.abs(sum / 4 - angle_fixture.mean_cosine:totable()[1]) < bound)
      probe:free()
      run:free()
    end)
  end

  it("is the cosine of two full backward passes", function()
    local run, batch_at = probe_run "float64"
    local stage_program = require "perigee.stage.program"
    local block = "student.blocks.2."
    local full = {}
    for side, wanted in pairs { denoise = { "denoise" }, alignment = { "features", "attention" } } do
      -- the whole program of a stage with these losses alone, every parameter's gradient
      local stage = { name = side, losses = {} }
      for _, name in ipairs(wanted) do stage.losses[#stage.losses + 1] = run.stage.losses[name] end
      local parameters = {}
      for _, group in ipairs(run.groups) do
        for _, entry in ipairs(group:trained()) do
          parameters[#parameters + 1] = { name = entry.name, tensor = entry.tensor }
        end
      end
      local plan = stage_program.plan(run.recipe, stage, {
        batch = 4, parameters = parameters, fixed_time = true, fixed_noise = true, drop_labels = false,
      })
      local inputs = run:bind_weights(batch_at(3))
      inputs.state = run.random_state
      full[side] = core.executable.new(plan):run(inputs)
    end
    local dots = { 0, 0, 0 }
    for name, a in pairs(full.alignment) do
      if name:find("gradient " .. block, 1, true) then
        local d = full.denoise[name]
        for k, pair in ipairs { { a, d }, { a, a }, { d, d } } do
          dots[k] = dots[k] + (pair[1] * pair[2]):sum():item()
        end
      end
    end
    local probe = require("perigee.signals.gradient_angle").build(run, { 2 })
    local inputs = run:bind_weights(batch_at(3))
    inputs.state = run.random_state
    local cosine = probe:measure(1, function() return inputs end)[1].cosine
    assert.is_true(math.abs(cosine - dots[1] / math.sqrt(dots[2] * dots[3])) < 1e-12)
    assert.is_true(#probe.executable.plan.calls < #run.plan.calls)
  end)

  it("sums over the images of several passes before the cosine is taken", function()
    local function measure(micro)
      local run = Run.new(tiny.recipe { batch = 16, micro = micro, precision = "float64" })
      run:build_stage()
      local value = require("perigee.signals.gradient_angle").measure(run, { 2 },
        { time = { 0.1, 0.8 }, images = 16 })[1]
      run:free()
      return value
    end
    local one, several = measure(16), measure(4)
    assert.equal(16, one.images)
    assert.equal(16, several.images)
    assert.equal(2, #one.cosine)
    assert.is_true(math.abs(one.mean - (one.cosine[1] + one.cosine[2]) / 2) < 1e-15)
    for k = 1, 2 do assert.is_true(math.abs(one.cosine[k] - several.cosine[k]) < 1e-12) end
  end)

  it("is taken at the weights' moving averages where that is asked for", function()
    for _, precision in ipairs { "float64", "bf16" } do
      local run = Run.new(tiny.recipe { batch = 8, precision = precision })
      run:build_stage()
      for _ = 1, 3 do run:advance() end
      local function measure(ema)
        local how = { time = { 0.5 }, images = 8, ema = ema }
        return require("perigee.signals.gradient_angle").measure(run, { 2 }, how)[1].mean
      end
      local averaged, plain = measure(true), measure(false)
      for _, group in ipairs(run.groups) do (group.working or group.parameters):copy_(group.average) end
      assert.equal(averaged, measure(false))
      assert.not_equal(averaged, plain)
      run:free()
    end
  end)

  it("of several blocks in one pass is that of each alone", function()
    local run = Run.new(tiny.recipe { batch = 8, precision = "float64" })
    run:build_stage()
    -- away from where the output layers' zeros stop every gradient
    for _ = 1, 3 do run:advance() end
    local signal = require "perigee.signals"
    local function reading(name, block, time)
      return signal.gradient_angle { name = name, block = block, time = time or { 0.1, 0.8 }, images = 16,
        from = 1, every = 1 }
    end
    local list = { reading("third", 3), signal.gradient_norm(), reading("first", 1),
      reading("elsewhere", 1, { 0.5 }), reading("second", 2) }
    local families = signal.families(list)
    assert.same({ 3, 1, 1 }, { #families[1], #families[2], #families[3] })
    run.gradient_norm = 5
    local together = signal.measure(list, run)
    assert.equal(5, together.gradient_norm)
    assert.same({ 0.5 }, together.elsewhere.time)
    for _, member in ipairs(families[1]) do
      local alone, shared = member:measure(run), together[member.name]
      assert.equal(alone.images, shared.images)
      for k = 1, 2 do assert.is_true(math.abs(alone.cosine[k] - shared.cosine[k]) < 1e-12) end
    end
    assert.is_true(math.abs(together.first.mean - together.third.mean) > 1e-6)
    run:free()
  end)
end)
