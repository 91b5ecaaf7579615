-- The gradient angle against PyTorch (tests/oracle/README.md) and against whole backward passes.
local core = require "perigee.core"
local haste_step = require "tests.lua.haste_step"
local oracle = require "tests.lua.oracle"
local Run = require "perigee.train.run"
local tiny = require "tests.lua.tiny"

local ops = core.ops

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
    local run = haste_step.run { precision = precision, batches = function() return batch_at(1) end }
    return run, batch_at
  end

  for _, precision in ipairs { "float64", "float32" } do
    it("is PyTorch's in " .. precision, function()
      local run, batch_at = probe_run(precision)
      local probe = require("perigee.stage.gradient_angle").build(run, { blocks = { angle.block } })
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
    local probe = require("perigee.stage.gradient_angle").build(run, { blocks = { 2 } })
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
      -- at the start the output layers' zeros stop every gradient: all cosines would be 0
      for _ = 1, 3 do run:advance() end
      local value = require("perigee.stage.gradient_angle").measure(run, { 2 },
        { time = { 0.1, 0.8 }, images = 16 })[1]
      run:free()
      return value
    end
    local one, several = measure(16), measure(4)
    assert.equal(16, one.images)
    assert.equal(16, several.images)
    assert.equal(2, #one.cosine)
    assert.is_true(math.abs(one.mean - (one.cosine[1] + one.cosine[2]) / 2) < 1e-15)
    assert.is_true(math.abs(one.cosine[1] - one.cosine[2]) > 1e-3)
    for k = 1, 2 do assert.is_true(math.abs(one.cosine[k] - several.cosine[k]) < 1e-12) end
  end)

  it("is taken at the weights' moving averages where that is asked for", function()
    for _, precision in ipairs { "float64", "bf16" } do
      local run = Run.new(tiny.recipe { batch = 8, precision = precision })
      run:build_stage()
      for _ = 1, 3 do run:advance() end
      local function measure(ema)
        local how = { time = { 0.5 }, images = 8, ema = ema }
        return require("perigee.stage.gradient_angle").measure(run, { 2 }, how)[1].mean
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
