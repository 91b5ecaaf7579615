-- Termination policies and the signals that they read.
local checkpoint = require "perigee.record.checkpoint"
local describe_recipe = require "perigee.recipe.describe"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local signals = require "perigee.signals"
local tiny = require "tests.lua.tiny"

local stop, signal = pg.stop, pg.signal

local in_folder = dofile(require("perigee.core.ffi").home .. "/tests/lua/folder.lua")(before_each, after_each)

local function copy(x)
  if type(x) ~= "table" then return x end
  local result = {}
  for key, value in pairs(x) do result[key] = copy(value) end
  return result
end

--- Asks a policy about events one after another, each time twice with copies of the same event and state, and with the
--- state as a checkpoint gives it back: the answers must be the same. Returns the step at which it finished, and the
--- reason.
local function replay(policy, events)
  local state = policy:initial()
  for _, event in ipairs(events) do
    local finished, next_state, reason = policy:decide(event, copy(state))
    for _, again in ipairs { copy(state), json.decode(json.encode(state)) } do
      local finished_again, state_again, reason_again = policy:decide(copy(event), again)
      assert.equal(finished, finished_again)
      assert.equal(json.encode(next_state), json.encode(state_again))
      assert.equal(reason, reason_again)
    end
    state = next_state
    if finished then return event.step, reason end
  end
end

-- the paper's readings (HASTE's review thread): cosines at t = 0.02, 0.1, 0.5, 0.8
local paper = {
  [50000] = { -0.0174, 0.0126, 0.0134, 0.0034 },
  [60000] = { 0.0418, -0.0767, 0.0106, 0.0406 },
  [70000] = { 0.0872, -0.0148, -0.0848, 0.1025 },
  [80000] = { -0.0032, -0.1155, -0.1272, -0.0212 },
}

local function paper_events(last)
  local events = {}
  for step = 49000, last or 100000, 1000 do
    local event = { step = step, stage = "align" }
    local cosine = paper[step]
    if cosine then
      local sum = 0
      for _, c in ipairs(cosine) do sum = sum + c end
      event.gradient_angle = { mean = sum / 4, cosine = cosine }
    end
    events[#events + 1] = event
  end
  return events
end

describe("stop.gradient_angle", function()
  it("continues at 50, 60 and 70 thousand steps of the paper's table, and stops at 80", function()
    local step, reason = replay(stop.gradient_angle(), paper_events())
    assert.equal(80000, step)
    assert.equal("gradient angle -0.0668 is below -0.05", reason)
    assert.is_nil(replay(stop.gradient_angle(), paper_events(79000)))
  end)

  it("needs the paper's signal unless told otherwise", function()
    local needed = stop.gradient_angle().needs[1]
    assert.same({ block = 5, time = { 0.02, 0.1, 0.5, 0.8 }, images = 2048, from = 50000, every = 10000,
      name = "gradient_angle", ema = false, parameters = "all", each = false }, needed.settings)
    for step, due in pairs { [49999] = false, [50000] = true, [55000] = false, [60000] = true, [80000] = true,
      [80001] = false } do
      assert.equal(due, needed:due(step))
    end
  end)

  it("counts readings in a row", function()
    local function events(...)
      local list = {}
      for k, mean in ipairs { ... } do
        list[2 * k - 1] = { step = 20 * k - 10 }
        list[2 * k] = { step = 20 * k, gradient_angle = { mean = mean } }
      end
      return list
    end
    local policy = stop.gradient_angle { patience = 2, below = 0 }
    assert.equal(80, replay(policy, events(-1, 1, -1, -1)))
    assert.is_nil(replay(policy, events(-1, 0, -1, 0)))
    assert.equal(20, replay(stop.gradient_angle { below = 0 }, events(-1)))
  end)
end)

describe("stop.stream_angle", function()
  --- An event of a reading with these bins { count, mean, error }.
  local function reading(step, ...)
    local bins = {}
    for k, bin in ipairs { ... } do bins[k] = { count = bin[1], mean = bin[2], error = bin[3] } end
    return { step = step, stream_angle = { bins = bins } }
  end

  local function steps(count, make)
    local list = {}
    for k = 1, count do
      list[2 * k - 1] = { step = 50 * k - 10 }
      list[2 * k] = make(50 * k)
    end
    return list
  end

  it("ends at once on a clear reading, later on a small one, never above the threshold", function()
    local function run(mean, below)
      return (replay(stop.stream_angle { bins = 2, below = below or 0 },
        steps(40, function(step) return reading(step, { 200, mean, 0.01 }, { 200, mean, 0.01 }) end)))
    end
    assert.equal(50, run(-0.05))
    local later = run(-0.01)
    assert.is_true(later > 200 and later < 1000, tostring(later))
    assert.is_nil(run(0.001))
    assert.is_nil(run(-0.05, -0.06))
    assert.equal(50, run(-0.05, 0.01))
  end)

  it("reads the bins that it is told to, and those that have samples", function()
    local function events(count)
      return steps(20, function(step) return reading(step, { count, -0.3, 0.01 }, { 0 }, { 300, 0.2, 0.01 }) end)
    end
    assert.equal(50, (replay(stop.stream_angle { bins = 3, take = { 1, 2 } }, events(300))))
    assert.is_nil((replay(stop.stream_angle { bins = 3, take = { 2, 3 } }, events(300))))
    assert.is_nil((replay(stop.stream_angle { bins = 3, take = { 2 } }, events(300))))
    assert.equal(100, (replay(stop.stream_angle { bins = 3, take = { 1 } }, events(15)))) -- 30 samples at least
    local _, reason = replay(stop.stream_angle { bins = 3, take = { 1 } }, events(300))
    assert.equal("mean cosine -0.3000 of 300 samples is below 0", reason)
  end)

  it("ends by mistake no oftener than it says, and sees a small change", function()
    math.randomseed(7)
    local function draw() return math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random()) end
    --- The share of so many runs that ends within 60 readings of 60 cosines each.
    local function share(mean, alarm)
      local ended = 0
      for _ = 1, 300 do
        local policy = stop.stream_angle { bins = 1, below = 0, alarm = alarm }
        local state, done, k = policy:initial(), false, 0
        while not done and k < 60 do
          local sum, squares = 0, 0
          for _ = 1, 60 do
            local x = mean + 0.1 * draw()
            sum, squares = sum + x, squares + x * x
          end
          local spread = math.sqrt((squares / 60 - (sum / 60) ^ 2) / 59)
          done, state = policy:decide(reading(0, { 60, sum / 60, spread }), state)
          k = k + 1
        end
        ended = ended + (done and 1 or 0)
      end
      return ended / 300
    end
    -- 300 runs: the share is uncertain by 0.023 at 0.2, and by 0.027 at 0.3
    local at_most = share(0, 0.3)
    assert.is_true(at_most <= 0.3 and at_most > 0.05, tostring(at_most))
    assert.is_true(share(0, 0.05) < 0.05 + 2 * 0.0126)
    assert.is_true(share(-0.02, 0.05) > 0.95)
    assert.is_true(share(0.02, 0.3) < 0.02)
  end)

  it("refuses what makes no test", function()
    assert.matches("take names bin 9 of 8", message_of(stop.stream_angle, { take = { 9 } }))
    assert.matches("take names bin 2 twice", message_of(stop.stream_angle, { take = { 2, 2 } }))
    assert.matches("take names no bins", message_of(stop.stream_angle, { take = {} }))
    assert.matches("alarm", message_of(stop.stream_angle, { alarm = 0 }))
  end)
end)

describe("stop.wall_clock", function()
  local function at(step, seconds, since, stage_steps)
    return { step = step, stage_steps = stage_steps or step, clock = seconds and { seconds = seconds, since = since } }
  end

  it("ends the stage after so much time, that of earlier processes too", function()
    local policy = stop.wall_clock { minutes = 1, seconds = 30 }
    assert.equal(40, (replay(policy, { at(10, 20, 1), at(20, 60, 1), at(25), at(30, 80, 1), at(40, 90, 1) })))
    local step, reason = replay(policy, { at(10, 20, 1), at(20, 50, 1), at(30, 39, 2), at(40, 41, 2) })
    assert.equal(40, step)
    assert.equal("91 s of training done", reason)
    -- a process whose first look comes later than the last one's last
    assert.equal(30, (replay(policy, { at(10, 20, 1), at(20, 30, 1), at(30, 60, 2) })))
  end)

  it("counts a later stage from its beginning", function()
    local policy = stop.wall_clock { seconds = 30 }
    assert.equal(130, (replay(policy, { at(110, 1000, 1, 10), at(120, 1029, 1, 20), at(130, 1030, 1, 30) })))
    assert.equal(130, (replay(policy, { at(110, 1000, 1, 10), at(120, 20, 2, 20), at(130, 30, 2, 30) })))
    assert.matches("no time", message_of(stop.wall_clock, {}))
  end)
end)

describe("stop.metric", function()
  it("ends when evaluations have turned, each counted once", function()
    local function at(step, value, of_step) return { step = step, ["metric fid"] = value
      and { value = value, step = of_step or step } or { undefined = "none yet" } } end
    local events = { at(100), at(200, 9), at(300, 8), at(400, 8.5), at(500, 8.5, 400), at(600, 8.05), at(700, 8.3),
      at(800, 8.4), at(900, 7) }
    local step, reason = replay(stop.metric { "fid" }, events)
    assert.equal(600, step)
    assert.equal("fid 8.05, the best was 8", reason)
    assert.equal(800, (replay(stop.metric { "fid", by = 0.1 }, events)))
    assert.equal(400, (replay(stop.metric { "fid", by = 0.1, patience = 1 }, events)))
    assert.equal(300, (replay(stop.metric { "fid", rising = true, patience = 1 }, events)))
  end)

  it("reads the evaluations that another process writes into the log, and a replay those that are there", function()
    local function change(recipe)
      recipe.stages[1].finish = stop.any(stop.metric { "distance", of = "teacher", every = 1, patience = 1 },
        stop.at_step(9))
    end
    local folder = in_folder "run"
    local log = { [2] = { 7, "teacher" }, [3] = { 1, "classifier" }, [4] = { 6, "teacher" }, [6] = { 6.5, "teacher" } }
    local function console(run)
      return { between_steps = function()
        local found = log[run.step]
        if not found then return end
        local events = require("perigee.record.events").open(folder)
        events:write { event = "evaluation", step = run.step, name = found[2], distance = found[1] }
        events:close()
      end, close = function() end }
    end
    local recipe = tiny.recipe { checkpoint = 0 }
    change(recipe)
    require("perigee.train").train(recipe, { folder = folder, quiet = true, console = console }):free()
    local text = files.read(folder .. "/events.jsonl")
    assert.is_truthy(text:find('"reason":"distance 6.5, the best was 6"', 1, true), text)
    text = text:gsub('[^\n]*"event":"signal"[^\n]*\n', "")
    files.write(folder .. "/events.jsonl", text)
    local run = require("perigee.replay.recorded").read(folder)
    local policy = stop.metric { "distance", of = "teacher", every = 1, patience = 1 }
    assert.same({ 6, "distance 6.5, the best was 6" }, (function()
      local answer = require("perigee.replay").ask(run, run:stage(), policy)
      return { answer.step, answer.reason }
    end)())
  end)
end)

describe("stop.after with another stop", function()
  it("asks that from then on, and hears nothing before", function()
    local function event(step, value) return { step = step, stage_steps = step, denoise = value } end
    local policy = stop.after(3, stop.plateau { loss = "denoise", patience = 2, by = 0.1 })
    local events = { event(1, 0), event(2, 0), event(3, 0), event(4, 9), event(5, 9), event(6, 5), event(7, 5),
      event(8, 5) }
    assert.equal(8, (replay(policy, events)))
    assert.equal("after(3, plateau(denoise, 2 readings))", policy.text)
    assert.equal(5, (replay(stop.after(3, stop.at_step(5)), events)))
    assert.equal(4, (replay(stop.after(3, stop.at_step(1)), events)))
    assert.equal(104, stop.after(3, stop.at_step(1)):latest(100))
    assert.matches("argument is a number, not a stop", message_of(stop.after, 3, 4))
  end)
end)

describe("stop.plateau", function()
  it("reads a part of a signal, which may rise", function()
    local progress = signal.alignment_progress { every = 1, from = 1 }
    local policy = stop.plateau { of = progress, field = "features.cosine", rising = true, patience = 2, by = 0.01 }
    local function event(step, cosine)
      return { step = step, alignment_progress = cosine and { features = { cosine = cosine } } or { features = {} } }
    end
    local step, reason = replay(policy, { event(1, 0.1), event(2, 0.5), event(3), event(4, 0.505), event(5, 0.6),
      event(6, 0.6), event(7, 0.4) })
    assert.equal(7, step)
    assert.equal("alignment_progress.features.cosine: no better than 0.6 for 2 readings", reason)
    assert.matches("`of` is a table; expected a signal", message_of(stop.plateau, { of = {} }))
  end)
end)

describe("stops", function()
  local function steps(n, fields)
    local list = {}
    for k = 1, n do
      list[k] = { step = k }
      for key, f in pairs(fields or {}) do list[k][key] = f(k) end
    end
    return list
  end

  it("at_step", function()
    local step, reason = replay(stop.at_step(3), steps(9))
    assert.equal(3, step)
    assert.equal("step 3 reached", reason)
    assert.equal("at_step(3)", tostring(stop.at_step(3)))
    assert.matches("stop%.at_step: 2%.5 is not a step number", message_of(stop.at_step, 2.5))
    assert.matches("stop%.at_step: nil is not a step number", message_of(stop.at_step))
  end)

  it("any ends with the first, all with the last; decisions are kept", function()
    local flicker = stop.custom { name = "flicker", function(event) return event.step == 2 end }
    assert.equal(2, replay(stop.any(stop.at_step(5), flicker), steps(9)))
    local step, reason = replay(stop.all(stop.at_step(5), flicker), steps(9))
    assert.equal(5, step)
    assert.equal("step 5 reached and flicker decided", reason)
    assert.equal(4, replay(stop.any(stop.all(stop.at_step(4), flicker), stop.at_step(7)), steps(9)))
    assert.equal("any(all(at_step(4), flicker), at_step(7))",
      tostring(stop.any(stop.all(stop.at_step(4), flicker), stop.at_step(7))))
    assert.matches("stop%.any: it needs at least one stop", message_of(stop.any))
    assert.matches("stop%.all: argument 2 is a number, not a stop", message_of(stop.all, stop.at_step(1), 3))
  end)

  it("say the step by which they have decided, where they can", function()
    local open = stop.custom { function() return false end }
    for expected, policies in pairs {
      [300] = { stop.at_step(300), stop.any(stop.at_step(700), stop.at_step(300)), stop.any(open, stop.at_step(300)),
                stop.all(stop.at_step(200), stop.any(stop.at_step(300), open)) },
      [700] = { stop.all(stop.at_step(700), stop.at_step(300)), stop.any(stop.all(stop.at_step(7), open),
                stop.at_step(700)) },
      none = { open, stop.any(open, open), stop.all(open, stop.at_step(300)), stop.gradient_angle() },
    } do
      for _, policy in ipairs(policies) do
        local recipe = { stages = { { finish = stop.at_step(1) }, { finish = policy } } }
        assert.equal(expected, describe_recipe.last_step(recipe) or "none", tostring(policy))
      end
    end
    local function last(...)
      local stages = {}
      for k, policy in ipairs { ... } do stages[k] = { finish = policy } end
      return describe_recipe.last_step { stages = stages }
    end
    assert.equal(30, last(stop.at_step(10), stop.after(20)))
    assert.equal(11, last(stop.at_step(10), stop.at_step(4))) -- a stage has one step at least
    assert.equal(15, last(stop.any(open, stop.after(10)), stop.any(stop.at_step(90), stop.after(5))))
    assert.is_nil(last(open, stop.after(5)))
    assert.equal(40, last(open, stop.at_step(40)))
  end)

  it("gather what they need, once each", function()
    local a = stop.custom { needs = { signal.loss { "features" } }, function() return false end }
    local b = stop.custom { needs = { signal.loss { "features" }, signal.gradient_norm() },
      function() return false end }
    local unique = signals.unique(stop.any(a, stop.all(b, stop.at_step(1))).needs)
    assert.equal(2, #unique)
    assert.matches("two different signals are named 'features' %(loss features 0 1; loss features 10 5%)",
      message_of(signals.unique, { signal.loss { "features" }, signal.loss { "features", from = 10, every = 5 } }))
    assert.matches("expected a signal, got a string", message_of(signals.unique, { "features" }))
  end)

  it("custom: a policy with a state of its own", function()
    local policy = stop.custom { name = "rising", function(event, state)
      local best = math.min(state.best or 1e30, event.features)
      return event.features > 1.5 * best, { best = best, history = { event.features, state.best } }
    end }
    assert.equal(6, replay(policy, steps(9, { features = function(k) return k < 6 and 10 - k or 2 * k end })))
  end)

  it("custom: what isn't a state is refused at once", function()
    local function ask(answer)
      return message_of(function()
        local policy = stop.custom { function() return false, answer end }
        return policy:decide({ step = 1 }, {})
      end)
    end
    assert.matches("its state is a number; it must be a table; its event has step", ask(3))
    assert.matches("cannot be kept in a checkpoint: .*JSON has no way to write inf, the value of 'value%.best'",
      ask { best = math.huge })
    assert.matches("cannot be kept in a checkpoint: .*JSON has no way to write a function", ask { f = print })
    assert.matches("stop%.custom: option '1' is missing", message_of(stop.custom, {}))
    assert.matches("unknown option 'need'.*needs", message_of(stop.custom, { need = {}, print }))
  end)
end)

describe("stop.after", function()
  it("counts the stage's own steps, whenever it began", function()
    local events = {}
    for step = 101, 130 do events[#events + 1] = { step = step, stage = "free", stage_steps = step - 100 } end
    local step, reason = replay(stop.after(7), events)
    assert.equal(107, step)
    assert.equal("7 steps of the stage done", reason)
    assert.equal("after(7)", tostring(stop.after(7)))
    for _, wrong in ipairs { 0, 2.5, -1, "7", false } do
      assert.matches("stop.after: expected a number of steps, 1 or more, got " .. tostring(wrong),
        message_of(stop.after, wrong), 1, true)
    end
  end)

  it("ends stages of a run after so many steps each, however the one before ended", function()
    local recipe = tiny.recipe { total = 30 }
    recipe.stages[1].finish = stop.any(stop.custom { function(event) return event.step == 3 end }, stop.after(9))
    recipe.stages[2].finish = stop.after(4)
    assert.equal(7, tiny.train(nil, { recipe = recipe }).step)
  end)
end)

describe("stop.plateau", function()
  local function events(...)
    local list = {}
    for k, value in ipairs { ... } do
      list[2 * k - 1] = { step = 20 * k - 10 } -- not due
      list[2 * k] = { step = 20 * k, features = value }
    end
    return list
  end

  it("ends after so many readings that are no better than the best by a margin", function()
    local policy = stop.plateau { loss = "features", patience = 3, by = 0.1 }
    local step, reason = replay(policy, events(5, 4, 3.95, 4.2, 3.89, 3.85, 3.8, 3.795))
    assert.equal(160, step)
    assert.equal("features: no better than 3.89 for 3 readings", reason)
    assert.is_nil(replay(policy, events(5, 4, 3.95, 4.2, 3.89, 3.85, 3.8, 3.7)))
    assert.equal("plateau(features, 3 readings)", tostring(policy))
    assert.same({ "features", from = 0, every = 10 }, policy.needs[1].settings)
    assert.matches("expected `loss` or `of`, and not both", message_of(stop.plateau, {}))
  end)
end)

describe("what is past", function()
  it("is said where a stop is put in charge", function()
    assert.is_nil(stop.at_step(9):remark(8, 0))
    assert.equal("at_step(9) is past, 9 steps are done", stop.at_step(9):remark(9, 0))
    assert.is_nil(stop.after(9):remark(28, 20))
    assert.equal("after(9) is past, the stage has done 9 steps", stop.after(9):remark(29, 20))
    local open = stop.custom { function() return false end }
    assert.equal("at_step(9) is past, 12 steps are done", stop.any(open, stop.at_step(9)):remark(12, 0))
    assert.is_nil(stop.all(open, stop.at_step(9)):remark(12, 0))
    assert.equal("after(2) is past, the stage has done 3 steps; at_step(9) is past, 12 steps are done",
      stop.all(stop.after(2), stop.at_step(9)):remark(12, 9))
  end)
end)

describe("an event", function()
  local declared = { signal.loss { "denoise" }, signal.loss { "features", every = 100 }, signal.gradient_norm() }
  local function event() return stop.event({ step = 7, stage = "align", stage_steps = 3, denoise = 1 }, declared) end

  it("has its fields and, where they were due, the signals that were declared; nothing else", function()
    local e = event()
    assert.same({ 7, "align", 3, 1 }, { e.step, e.stage, e.stage_steps, e.denoise })
    assert.is_nil(e.features)
    assert.is_nil(e.gradient_norm)
    assert.matches("stops_spec%.lua:%d+: the event has no field 'denose'; did you mean \"denoise\"%?",
      message_of(function() return e.denose end))
    assert.matches("the event has no field '1'$", message_of(function() return e[1] end))
    assert.same({ "step", "stage", "stage_steps", "denoise", "features", "gradient_norm" }, stop.names_of(e))
  end)

  it("is the policy's own copy, and so is the state", function()
    local seen = {}
    local careless = stop.custom { name = "careless", function(e, state)
      e.step, e.denoise = 1e9, -1
      state.n, state.list = (state.n or 0) + 1, state.list or {}
      state.list[#state.list + 1] = e.stage
      return false, state
    end }
    local watching = stop.custom { function(e)
      seen[#seen + 1] = e.step
      return e.step >= 1e9
    end }
    local policy, e = stop.any(careless, watching, stop.at_step(1e8)), event()
    local state = policy:initial()
    local finished, next_state = policy:decide(e, state)
    assert.is_false(finished)
    assert.same({ 7 }, seen)
    assert.equal(1, e.denoise)
    assert.same({}, state[1].state)
    assert.same({ n = 1, list = { "align" } }, next_state[1].state)
    assert.is_nil(getmetatable(next_state[1].state.list))
    local again = select(2, policy:decide(e, next_state))
    assert.same({ n = 2, list = { "align", "align" } }, again[1].state)
    assert.same({ n = 1, list = { "align" } }, next_state[1].state)
  end)

  it("can't have a signal of one of its own fields' names", function()
    assert.matches("signal%.loss: 'step' is a field of every event; choose another name",
      message_of(signal.loss, { "step" }))
  end)
end)

describe("a policy that answers badly", function()
  local cases = {
    { "nothing", function() end, "it returns nothing %(nil%); expected true or false" },
    { "a text", function() return "no" end, "it returns a string %(no%); expected true or false" },
    { "a number", function() return 0, {} end, "it returns a number %(0%); expected true or false" },
    { "a state in place", function(_, state)
      state.n = (state.n or 0) + 1
      return state.n > 5
    end, "it changes its state and returns none; return the state as the second result" },
    { "what can't be kept", function(event) return false, { rate = event.step / 0 } end,
      "its state cannot be kept in a checkpoint: .*the value of 'value%.rate'" },
    { "of a field that isn't there", function(event) return event.denose < 1 end,
      "stops_spec%.lua:%d+: the event has no field 'denose'; did you mean \"denoise\"%?" },
    { "of a signal that isn't due", function(event) return event.features < 1 end,
      "stops_spec%.lua:%d+: attempt to compare nil with number" },
    { "with an error", function() error "no idea" end, "stops_spec%.lua:%d+: no idea" },
  }
  for _, case in ipairs(cases) do
    it(case[1] .. " stops the run, which is saved; policy, place and event are named", function()
      local line = debug.getinfo(case[2], "S").linedefined
      local recipe = tiny.recipe { checkpoint = 0 }
      recipe.stages[1].finish = stop.any(stop.at_step(4), stop.all(stop.at_step(2), stop.custom { name = "mine",
        needs = { signal.loss { "denoise" }, signal.loss { "features", from = 9 } }, case[2] }))
      recipe.stages[1].signals = { signal.gradient_norm { from = 100 } }
      local message = message_of(tiny.train, nil, { recipe = recipe, folder = in_folder "run" })
      assert.matches(("^step 1, stage align: policy 'mine' %%([^\n]*stops_spec%%.lua:%d%%): "):format(line), message)
      assert.matches(case[3], message)
      assert.matches("; its event has step, stage, stage_steps, denoise, features, gradient_norm\nstep 1 is saved; "
        .. "continue with %-%-resume$", message)
      assert.same({ 1 }, checkpoint.list(in_folder "run"))
    end)
  end

  it("is asked at that step when the run continues with another", function()
    local function policy(broken)
      return function(recipe)
        recipe.stages[1].finish = stop.custom { name = "at five", function(event)
          if broken and event.step == 5 then return nil end
          return event.step == 5
        end }
      end
    end
    local options = { checkpoint = 0, total = 9 }
    message_of(tiny.train, options, { folder = in_folder "run", change = policy(true) })
    assert.same({ 5 }, checkpoint.list(in_folder "run"))
    tiny.train(options, { folder = in_folder "run", change = policy(false), resume = true, steps = 9 })
    tiny.train(options, { folder = in_folder "whole", change = policy(false), steps = 9 })
    assert.is_true(tiny.checkpoint(in_folder "whole", 9) == tiny.checkpoint(in_folder "run", 9))
  end)
end)

describe("the terminal", function()
  it("says why stages end, the last too, and that a stop is past where its stage begins", function()
    local status, output = tiny.perigee(("train %s --align 5 --total 3 --no-console --runs %s"):format(
      tiny.quote(tiny.path), tiny.quote(in_folder())))
    assert.equal(0, status, output)
    assert.matches("\nstep 5: stage align ends %(step 5 reached%); stage free begins: 1·denoise", output)
    assert.matches("\nnote: at_step%(3%) is past, 5 steps are done: stage free ends after its next step\n", output)
    assert.matches("\nstep 6: stage free ends %(step 3 reached%)\n", output)
    assert.matches("step 6/6 ", output)
  end)

  it("names a policy of the recipe's that fails, with its line, in one message", function()
    files.write(in_folder "late.lua", [[
local pg = require "perigee"
local recipe = dofile "tests/lua/recipes/tiny.lua"
recipe.stages[1].finish = pg.stop.custom { name = "late", needs = { pg.signal.loss { "denoise", from = 3 } },
  function(event)
    return event.denoise < 1e-9
  end }
return recipe
]])
    local status, output = tiny.perigee(("train %s --no-console --runs %s"):format(tiny.quote(in_folder "late.lua"),
      tiny.quote(in_folder())))
    assert.equal(1, status)
    assert.matches("\nperigee: step 1, stage align: policy 'late' %([^\n]*late%.lua:4%): [^\n]*late%.lua:5: "
      .. "attempt to compare nil with number; its event has step, stage, stage_steps, denoise\n"
      .. "step 1 is saved; continue with %-%-resume\n$", output)
  end)
end)

describe("signals", function()
  it("are due at their cadence", function()
    local s = signal.loss { "features", from = 10, every = 4 }
    local due = {}
    for step = 1, 20 do
      if s:due(step) then due[#due + 1] = step end
    end
    assert.same({ 10, 14, 18 }, due)
  end)

  it("refuse settings that make no sense", function()
    assert.matches("'time' is a table { 1.5 }; expected numbers from 0 to 1",
      message_of(signal.gradient_angle, { time = { 1.5 } }))
    assert.matches("time lists no times", message_of(signal.gradient_angle, { time = {} }))
    assert.matches("option 'every' is a number %(0%)", message_of(signal.loss, { "features", every = 0 }))
    assert.matches("option 'images' is a number %(0%)", message_of(signal.gradient_angle, { images = 0 }))
  end)

  it("of a run are what the step had", function()
    local seen = {}
    local recipe = tiny.recipe { align = 3, total = 4 }
    recipe.stages[1].finish = stop.any(stop.custom {
      needs = { signal.loss { "denoise" }, signal.loss { "features", from = 2, every = 2 }, signal.gradient_norm() },
      function(event)
        seen[event.step] = copy(event)
        return false
      end }, stop.at_step(3))
    local run = tiny.train(nil, { recipe = recipe })
    assert.equal(4, run.step)
    assert.is_number(seen[1].denoise)
    assert.is_nil(seen[1].features)
    assert.is_number(seen[2].features)
    assert.is_true(seen[3].gradient_norm > 0)
    assert.equal("align", seen[3].stage)
    assert.is_nil(seen[4]) -- the next stage has another policy
  end)

  it("name a loss that the stage lacks", function()
    local recipe = tiny.recipe { align = 3, total = 4 }
    recipe.stages[1].finish = stop.custom { needs = { signal.loss { "denoising" } }, function() return false end }
    assert.matches("signal%.loss: the stage 'align' has no loss 'denoising'; it has denoise, features, attention",
      message_of(tiny.train, nil, { recipe = recipe }))
  end)

  it("gradient_angle names a stage without alignment, and a block that isn't there", function()
    local function with(stage, block)
      local recipe = tiny.recipe { align = 1, total = 4 }
      recipe.stages[stage].finish = stop.gradient_angle { block = block, from = 1, every = 1, images = 8 }
      return message_of(tiny.train, nil, { recipe = recipe })
    end
    assert.matches("gradient_angle: the stage 'free' needs a denoising and an alignment loss", with(2, 2))
    assert.matches("gradient_angle: block 7 of a student with 3 blocks", with(1, 7))
  end)
end)
