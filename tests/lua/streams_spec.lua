-- Signals that are recorded into the training step, and those that keep running means: against separate backward
-- passes, without a trace in the training, and through a kill.
local core = require "perigee.core"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local home = require("perigee.core.ffi").home
local json = require "perigee.io.json"
local pg = require "perigee"
local Run = require "perigee.train.run"
local signals = require "perigee.signals"
local stage_program = require "perigee.stage.program"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(home .. "/tests/lua/folder.lua")(setup, teardown)
local loss, signal, stop = pg.loss, pg.signal, pg.stop
local tensor = core.tensor

local LOSSES = {
  denoise = function() return loss.flow_matching() end,
  features = function(block) return loss.feature_alignment { block = block or 2, hidden = 24 } end,
  attention = function(blocks) return loss.attention_alignment { student = blocks or { 1, 2 }, teacher = { 3, 4 } } end,
}

--- The tiny recipe with the attention of blocks 1 and 2 aligned, so that block 2 is the last that is. `how`: losses
--- { name, weight }, signals, finish; the rest goes to tiny.
local function recipe(how)
  local given = how.losses or { { "denoise", 1 }, { "features", 0.5 }, { "attention", 0.5 } }
  local base = tiny.recipe(how.options)
  local stage = base.stages[1]
  stage.losses, stage.signals, stage.finish = {}, how.signals or {}, how.finish or stop.at_step(6)
  for k, entry in ipairs(given) do
    stage.losses[k] = { name = entry[1], weight = entry[2], loss = entry[3] or LOSSES[entry[1]]() }
  end
  return base
end

local function started(how)
  local run = Run.new(recipe(how))
  run:build_stage()
  return run
end

local function measure(run) return signals.measure(run:signals_due(), run, run.signal_state) end

--- Per sample, the cosine between the gradients of a loss and of denoising at block 2's output, by two programs.
local function separate_cosines(run, inputs)
  local sides = {}
  for _, name in ipairs { "denoise", "features" } do
    local stage = { name = name, losses = { run.stage.losses[name] } }
    local trace = stage_program.trace(run.recipe, stage, { batch = run.micro })
    local one = tensor.tensor(1, {}, "float64")
    local tap = trace.context:tap "block 2"
    local gradient = core.gradient(trace.program, { trace.losses[name] }, { one }, { tap })[1]
    local plan = core.plan.build(trace.program, { { name = "g", value = gradient },
      { name = "t", value = trace.context:forward().t } })
    local out = core.executable.new(plan):run(inputs)
    sides[name], sides.t = out.g:reshape { run.micro, -1 }, out.t:totable()
  end
  local cosines = {}
  for k = 1, run.micro do
    local a, b = sides.denoise:select(1, k), sides.features:select(1, k)
    cosines[k] = (a * b):sum():item() / math.sqrt((a * a):sum():item() * (b * b):sum():item())
  end
  return cosines, sides.t
end

describe("signal.stream_angle", function()
  it("is the cosine of two separate backward passes, by noise level, over the steps of its window", function()
    local run = started { signals = { signal.stream_angle { every = 2 } }, options = { precision = "float64" } }
    for _ = 1, 3 do run:advance() end -- at the start the output layers' zeros stop every gradient
    run.signal_state.stream_angle = nil
    local count, sums, squares = {}, {}, {}
    for k = 1, 8 do count[k], sums[k], squares[k] = 0, 0, 0 end
    for _ = 1, 2 do
      local batch = run:batch()
      run:set_random_state(run.step, 0)
      local inputs = run:bind_weights { state = run.random_state }
      for name, t in pairs(batch) do inputs[name] = t end
      local cosines, times = separate_cosines(run, inputs)
      for k, t in ipairs(times) do
        local bin = math.floor(t * 8) + 1
        count[bin], sums[bin] = count[bin] + 1, sums[bin] + cosines[k]
        squares[bin] = squares[bin] + cosines[k] ^ 2
      end
      run:advance(nil, batch)
    end
    local value = signals.measure(run.stage.measured, run, run.signal_state).stream_angle
    assert.equal(16, value.count)
    local some = false
    for k = 1, 8 do
      local bin = value.bins[k]
      assert.equal(count[k], bin.count)
      if count[k] == 0 then assert.is_nil(bin.mean)
      else
        local mean = sums[k] / count[k]
        assert.is_true(math.abs(bin.mean - mean) < 1e-10, ("bin %d: %.12g, expected %.12g"):format(k, bin.mean, mean))
        some = some or math.abs(mean) > 1e-3
      end
      if count[k] < 2 then assert.is_nil(bin.error)
      else
        local variance = (squares[k] - sums[k] ^ 2 / count[k]) / (count[k] - 1)
        assert.is_true(math.abs(bin.error - math.sqrt(variance / count[k])) < 1e-9)
      end
    end
    assert.is_true(some)
    run:free()
  end)

  it("is the same in pieces, and begins again after each reading", function()
    local values = {}
    for k, micro in ipairs { 8, 4 } do
      local run = started { signals = { signal.stream_angle { every = 3 } },
        options = { precision = "float64", micro = micro } }
      for _ = 1, 3 do run:advance() end
      measure(run)
      for _ = 1, 3 do run:advance() end
      values[k] = measure(run).stream_angle
      run:free()
    end
    assert.equal(24, values[1].count)
    assert.is_true(math.abs(values[1].mean - values[2].mean) < 1e-12 and math.abs(values[1].mean) > 1e-4)
    assert.equal(values[1].bins[3].count, values[2].bins[3].count)
  end)

  it("gives no value where a gradient is zero, and ends nothing then", function()
    local finish = stop.stream_angle { below = 2, from = 0, every = 2, bins = 1 }
    local run = started { losses = { { "denoise", 1 }, { "features", 0 } }, finish = finish }
    for step = 1, 20 do
      run:advance()
      assert.is_false((run:decide()))
      if step == 20 then assert.equal(10, run.policy_state.readings) end
    end
    run:advance()
    local value = signals.measure(run.stage.measured, run, run.signal_state).stream_angle
    assert.same({ count = 0, from = 0, to = 1 }, value.bins[1])
    assert.is_nil(value.mean)
    assert.equal(8, value.undefined)
    run:free()
  end)

  it("says where there is no such angle", function()
    local function refused(losses, message, block)
      local made = recipe { losses = losses, signals = { signal.stream_angle { block = block } } }
      expect.fails(function() made:validate() end, message)
    end
    refused({ { "denoise", 1 }, { "attention", 1 } }, "attention alignment alone has no angle there")
    refused({ { "features", 1 } }, "the stage 'align' has no denoising loss")
    refused({ { "denoise", 1 }, { "features", 1 }, { "attention", 1, LOSSES.attention { 2, 3 } } },
      "the loss 'attention' reaches block 3, so the gradient that comes down to block 2's output is not denoising's")
    refused({ { "denoise", 1 }, { "features", 1 } }, "block 7 of a student with 3 blocks", 7)
    local function custom(tap) return loss.custom { name = "own", needs_teacher = true, compute = function(_, context)
      return (context:tap(tap) * 1e-3):mean() + context:teacher_features().patches:mean() * 0
    end } end
    local function building(losses, message, block)
      local run = Run.new(recipe { losses = losses, signals = { signal.stream_angle { block = block } } })
      expect.fails(function() run:build_stage() end, message)
      run:free()
    end
    building({ { "denoise", 1 }, { "features", 1 }, { "own", 1, custom "block 3" } },
      "the loss 'own' reaches the output of block 2 from above too")
    building({ { "denoise", 1 }, { "features", 1 } }, "no alignment loss reads the output of block 3", 3)
  end)
end)

describe("signals of the step", function()
  it("change no bit of the training, in any precision, in pieces or not", function()
    for _, options in ipairs { { precision = "float32" }, { precision = "bf16", micro = 4 },
      { precision = "float32", recompute = true } } do
      local bytes = {}
      for k, list in ipairs { {}, { signal.stream_angle { every = 2 }, signal.loss_by_time { "denoise", every = 2 },
        signal.loss_by_time { "features", every = 3 }, signal.holistic_angle { from = 2, every = 2 },
        signal.alignment_progress { from = 2, every = 2 }, signal.gradient_norms { from = 2, every = 2 },
        signal.average_distance { every = 2 } } } do
        local run = started { signals = list, options = options }
        for _ = 1, 5 do
          run:advance()
          measure(run)
        end
        local values = run.groups[1].parameters:totable()
        values[#values + 1] = run.gradient_norm
        bytes[k] = json.encode(values)
        run:free()
      end
      assert.is_true(bytes[1] == bytes[2])
    end
  end)

  it("give the losses of the samples, whose means are the step's losses", function()
    local run = started { signals = { signal.loss_by_time { "denoise", every = 1 },
      signal.loss_by_time { "features", every = 1 } }, options = { precision = "float64", micro = 4 } }
    run:advance()
    local values = measure(run)
    assert.is_true(math.abs(values["denoise by time"].mean - run.losses.denoise) < 1e-12)
    assert.is_true(math.abs(values["features by time"].mean - run.losses.features) < 1e-12)
    assert.equal(8, values["denoise by time"].count)
    run:free()
    expect.fails(function() recipe { signals = { signal.loss_by_time { "attention" } } }:validate() end,
      "the loss 'attention' has no value for each sample")
  end)

  it("go on through a kill as if nothing had been, bit for bit", function()
    local function how() return { signals = { signal.stream_angle { every = 5 },
      signal.holistic_angle { from = 1, every = 3 } } } end
    local whole, parts = in_folder "whole", in_folder "parts"
    tiny.train(nil, { recipe = recipe(how()), folder = whole })
    local states = 0
    for _, steps in ipairs { 2, 4, 6, 7 } do -- within a window, and within a stage
      tiny.train(nil, { recipe = recipe(how()), folder = parts, resume = steps > 2, steps = steps })
      local state, file = require("perigee.record.checkpoint").open(parts)
      if state.signals and state.signals.stream_angle then states = states + 1 end
      assert.equal(steps < 6 and steps > 0, file.entries["signal.holistic_angle.denoise"] ~= nil)
    end
    tiny.train(nil, { recipe = recipe(how()), folder = parts, resume = true })
    assert.equal(2, states)
    local function readings(folder)
      local list = {}
      for line in files.read(folder .. "/events.jsonl"):gmatch "[^\n]+" do
        if line:find('"event":"signal"', 1, true) then list[#list + 1] = line end
      end
      return list
    end
    assert.equal(3, #readings(whole))
    assert.same(readings(whole), readings(parts))
    assert.is_true(tiny.checkpoint(whole, 12) == tiny.checkpoint(parts, 12))
  end)
end)

describe("signal.holistic_angle", function()
  it("averages the gradients before the cosine is taken", function()
    local run = started { signals = { signal.holistic_angle { from = 3, every = 1, decay = 0.75 } },
      options = { precision = "float64" } }
    local probe = require "perigee.stage.gradient_angle"
    local sums, values = {}, {}
    for step = 1, 5 do
      run:advance()
      if step >= 3 then
        values[#values + 1] = measure(run).holistic_angle
        probe.with(run, { blocks = { 2 }, drawn = true }, 8, function(built, count, batch)
          built:sum(count, batch(run:bind_weights { state = run.random_state }))
          sums[#sums + 1] = { built.parts[1].denoise.sum:totable(), built.parts[1].alignment.sum:totable() }
        end)
      end
    end
    local function cosine(weights)
      local dots = { 0, 0, 0 }
      for k = 1, #sums[1][1] do
        local d, a = 0, 0
        for n, weight in ipairs(weights) do d, a = d + weight * sums[n][1][k], a + weight * sums[n][2][k] end
        dots[1], dots[2], dots[3] = dots[1] + d * a, dots[2] + d * d, dots[3] + a * a
      end
      return dots[1] / math.sqrt(dots[2] * dots[3])
    end
    assert.is_true(math.abs(values[3].cosine - cosine { 0, 0, 1 }) < 1e-12)
    assert.is_true(math.abs(values[1].averaged - cosine { 1 }) < 1e-6) -- means are float32
    assert.is_true(math.abs(values[3].averaged - cosine { 0.75 ^ 2, 0.25 * 0.75, 0.25 }) < 1e-6)
    assert.is_true(math.abs(values[3].averaged - values[3].cosine) > 1e-3)
    assert.equal(3, values[3].readings)
    run:free()
  end)

  it("says that a block above the alignment has no angle, and so does the paper's", function()
    local run = started { signals = { signal.holistic_angle { block = 3, from = 4, every = 1 },
      signal.gradient_angle { block = 3, images = 8, from = 4, every = 1 } } }
    for _ = 1, 4 do run:advance() end
    local values = measure(run)
    assert.equal("the gradient of the alignment is zero", values.holistic_angle.undefined)
    assert.is_nil(values.holistic_angle.averaged)
    assert.is_nil(values.gradient_angle.mean)
    assert.equal("at t = 0.8 the gradient of the alignment is zero", values.gradient_angle.undefined)
    local decide = stop.gradient_angle { block = 3, below = 1, images = 8 }
    assert.is_false((decide:decide({ step = 4, gradient_angle = values.gradient_angle }, decide:initial())))
    run:free()
  end)
end)

describe("the gradient angle's options", function()
  it("take parts of a block, and each alignment loss, whose sum is the whole's gradient", function()
    local run = started { options = { precision = "float64" } }
    for _ = 1, 3 do run:advance() end
    local probe = require "perigee.stage.gradient_angle"
    local function sums(options)
      local vectors = {}
      probe.with(run, options, 8, function(built, count, batch)
        built:sum(count, batch(run:bind_weights { time = core.ops.fill({ 8 }, { value = 0.5, dtype = "float64" }),
          state = run.random_state }))
        for name, side in pairs(built.parts[1]) do vectors[name] = side.sum:totable() end
      end)
      return vectors
    end
    local whole, each = sums { blocks = { 2 } }, sums { blocks = { 2 }, each = true }
    local attention = sums { blocks = { 2 }, parameters = "attention" }
    local mlp = sums { blocks = { 2 }, parameters = "mlp" }
    assert.is_true(#attention.denoise > 0 and #mlp.denoise > 0 and #attention.denoise + #mlp.denoise < #whole.denoise)
    local count = 0
    for k, expected in ipairs(whole.alignment) do
      assert.is_true(math.abs(each.features[k] + each.attention[k] - expected) < 1e-12)
      count = count + (each.features[k] ~= 0 and each.attention[k] ~= 0 and 1 or 0)
    end
    assert.is_true(count > 100)
    assert.same(whole.denoise, each.denoise)
    local value = signal.gradient_angle { block = 2, images = 8, each = true, time = { 0.1, 0.5 }, parameters = "mlp" }
      :measure(run)
    assert.equal(2, #value.by.features.cosine)
    assert.is_true(math.abs(value.by.features.mean - value.mean) < 1e-12) -- attention's loss reaches no MLP of block 2
    value = signal.gradient_angle { block = 2, images = 8, each = true, time = { 0.5 }, parameters = "attention" }
      :measure(run)
    assert.is_true(math.abs(value.by.features.mean - value.mean) > 1e-6)
    run:free()
  end)
end)

describe("a loss's time_weight", function()
  --- The gradients of all that is trained after one step of these alignment losses alone, with a weight.
  local function gradients(micro, weight)
    local losses = { { "denoise", 0 } }
    losses[2] = { "features", 1, loss.feature_alignment { block = 2, hidden = 24, time_weight = weight } }
    losses[3] = { "attention", 1, loss.attention_alignment { student = { 1, 2 }, teacher = { 3, 4 },
      time_weight = weight } }
    losses[4] = { "gram", 1, loss.gram_alignment { block = 1, time_weight = weight } }
    local run = started { losses = losses, options = { precision = "float64", batch = 4, micro = micro } }
    run:advance()
    local list, value = {}, run.losses.features
    for _, group in ipairs(run.groups) do
      for _, x in ipairs(group.gradients:totable()) do list[#list + 1] = x end
    end
    run:free()
    return list, value
  end

  local function largest(a, b)
    local most = 0
    for k = 1, #a do most = math.max(most, math.abs(a[k] - b[k])) end
    return most
  end

  it("weighs the gradient of each sample by its own time, and leaves the logged value", function()
    local plain, value = gradients(4)
    local one, same_value = gradients(4, function(t) return t * 0 + 1 end)
    assert.is_true(largest(plain, one) < 1e-15)
    local half = gradients(4, function(t) return t * 0 + 0.5 end)
    for k = 1, #half do half[k] = 2 * half[k] end
    assert.is_true(largest(plain, half) < 1e-12)
    -- a sample a pass has one weight for its whole gradient; together they must be the same
    local function falling(t) return (1 - t) * (1 - t) end
    local together, weighted_value = gradients(4, falling)
    assert.is_true(largest(together, (gradients(1, falling))) < 1e-12)
    assert.is_true(largest(together, plain) > 1e-3)
    assert.equal(value, weighted_value)
    assert.equal(value, same_value)
  end)

  it("is refused where it gives no weight for each sample", function()
    local made = recipe { losses = { { "denoise", 1 },
      { "features", 1, loss.feature_alignment { block = 2, hidden = 24, time_weight = function() return 2 end } } } }
    expect.fails(function() Run.new(made) end, "loss 'features': time_weight returns 2; expected a weight for each")
  end)
end)

describe("a recipe of four stages", function()
  --- Denoising alone; features; both alignments; denoising alone again, each until its policy says so.
  local function four()
    local base = tiny.recipe { checkpoint = 2, keep = 9, total = 12 }
    local function stage(name, names, finish, list)
      local losses = {}
      for k, one in ipairs(names) do losses[k] = { one == "denoise" and 1 or 0.5, base.stages[1].losses[one] } end
      return { name = name, losses = losses, finish = finish, signals = list }
    end
    base.stages[1].losses.denoise = base.stages[1].losses[1].loss
    base.stages[1].losses.features = base.stages[1].losses[2].loss
    base.stages[1].losses.attention = LOSSES.attention()
    local angle = signal.stream_angle { every = 2 }
    return pg.recipe {
      name = "four", student = base.student, teacher = base.teacher, data = base.data, optim = base.optim, ema = 0.9,
      keep = 99, every = { log = 1, checkpoint = 1 },
      stages = {
        stage("warm", { "denoise" }, stop.after(2)),
        stage("features", { "denoise", "features" }, stop.stream_angle { below = 2, from = 0, every = 2, bins = 1 }),
        stage("both", { "denoise", "features", "attention" }, stop.after(2, stop.at_step(1)), { angle }),
        stage("free", { "denoise" }, stop.after(3)),
      },
    }
  end

  it("goes through all of them, gives the teacher back after the third, and is resumed in each", function()
    local whole = in_folder "four"
    local run = tiny.train(nil, { recipe = four(), folder = whole })
    assert.is_true(run.finished)
    local seen, freed = {}, {}
    for line in files.read(whole .. "/events.jsonl"):gmatch "[^\n]+" do
      local event = json.decode(line)
      if event.event == "stage" then
        seen[#seen + 1] = { event.stage, event.step }
        freed[#freed + 1] = event.freed_mib or 0
      end
    end
    local second = seen[3][2]
    assert.is_true(second >= 6 and second <= 10) -- 30 samples and more are 4 steps
    assert.same({ { "warm", 0 }, { "features", 2 }, { "both", second }, { "free", second + 3 } }, seen)
    assert.is_true(freed[4] > 0.1)
    local last = second + 6
    for _, steps in ipairs { 1, 4, second + 1, second + 4 } do
      local parts = in_folder("four-" .. steps)
      tiny.train(nil, { recipe = four(), folder = parts, steps = steps })
      tiny.train(nil, { recipe = four(), folder = parts, resume = true })
      assert.is_true(tiny.checkpoint(whole, last) == tiny.checkpoint(parts, last))
    end
  end)
end)

describe("what else signals say", function()
  it("is what was measured apart: progress, norms, distances, bytes, speed", function()
    local run = started { signals = { signal.alignment_progress { from = 3, every = 1 },
      signal.gradient_norms { from = 3, every = 1 }, signal.average_distance { from = 3, every = 1 },
      signal.memory { from = 3, every = 1 }, signal.throughput { from = 3, every = 1 },
      signal.clock { from = 3, every = 1 } }, options = { precision = "float64" } }
    for _ = 1, 3 do run:advance() end
    local values = measure(run)
    -- the same images and times in a trace of its own
    local trace = stage_program.trace(run.recipe, run.stage, { batch = 8, drop_labels = false })
    local entropy = trace.program:trace(function()
      local sum
      for _, block in ipairs { 3, 4 } do
        local theirs, skip = trace.context:teacher_attention(block)
        local part = theirs:narrow(2, skip + 1, theirs.shape[2] - skip):narrow(4, 1, 3)
        local q, k = part:select(3, 1):permute { 1, 3, 2, 4 }, part:select(3, 2):permute { 1, 3, 2, 4 }
        local p = core.ops.softmax(core.ops.matmul(q, k:transpose()) * (1 / math.sqrt(theirs.shape[5])), -1)
        local one = (p * core.ops.log(p)):sum(-1):mean() * -0.5
        sum = sum and sum + one or one
      end
      return sum
    end)
    local plan = core.plan.build(trace.program, { { name = "features", value = trace.losses.features },
      { name = "attention", value = trace.losses.attention }, { name = "entropy", value = entropy } })
    local loader = run:probe_loader(8)
    run:set_random_state(run.step, 0)
    local inputs = run:bind_weights { state = run.random_state }
    for name, t in pairs(loader:next()) do inputs[name] = t end
    local out = core.executable.new(plan):run(inputs)
    local function near(expected, got)
      assert.is_true(math.abs(got - expected) < 1e-10 * math.max(1, math.abs(expected)), ("%g, expected %g")
        :format(got, expected))
    end
    local progress = values.alignment_progress
    near(-out.features:item(), progress.features.cosine)
    near(out.attention:item(), progress.attention.cross_entropy)
    near(out.entropy:item(), progress.attention.teacher_entropy)
    assert.is_true(progress.attention.teacher_entropy < progress.attention.cross_entropy)
    loader:close()
    -- norms: those of the probe of the second block
    local probe = require "perigee.stage.gradient_angle"
    probe.with(run, { blocks = { 2 }, drawn = true, each = true }, 8, function(built, count, batch)
      local reading = built:measure(count, batch(run:bind_weights { state = run.random_state }))[1]
      near(reading.denoise, values.gradient_norms.denoise[2])
      near(reading.by.features.alignment, values.gradient_norms.features[2])
    end)
    assert.same({ 1, 2, 3 }, values.gradient_norms.block)
    assert.equal(0, values.gradient_norms.features[3])
    local w, a = run.groups[1].parameters, run.groups[1].average
    near(math.sqrt(((w - a) * (w - a)):sum():item() / (w * w):sum():item()), values.average_distance)
    local sum = 0
    for _, bytes in pairs(values.memory.by) do sum = sum + bytes end
    assert.equal(values.memory.held, sum)
    assert.is_true(values.memory.peak >= values.memory.held and values.memory.by.parameters > 0)
    assert.equal(3, values.throughput.steps)
    assert.is_true(values.clock.seconds > 0 and values.throughput.images_per_second > 24 / values.clock.seconds / 2)
    run:advance()
    assert.equal(1, measure(run).throughput.steps)
    run:free()
  end)

  it("gives its memory back, and takes what is planned for it", function()
    local C, price = require("perigee.core.ffi").C, require "perigee.cost.price"
    local code = require("perigee.core.ffi").purpose_code.signal
    collectgarbage()
    local before = tonumber(C.pg_memory_now(C.PG_CPU, code))
    local list = { signal.holistic_angle { from = 1, every = 1 }, signal.alignment_progress { from = 1, every = 1 } }
    local planned = price.recipe(recipe { signals = list })[1].memory.signal
    local run = started { signals = list }
    run:advance()
    measure(run)
    local held = tonumber(C.pg_memory_now(C.PG_CPU, code)) - before
    assert.is_true(held > 0.5 * planned and held <= planned, ("%d bytes, planned %d"):format(held, planned))
    run:free()
    collectgarbage()
    collectgarbage()
    assert.equal(before, tonumber(C.pg_memory_now(C.PG_CPU, code)))
  end)
end)
