-- Termination policies and the signals that they read.
local describe_recipe = require "perigee.recipe.describe"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local signals = require "perigee.signals"
local tiny = require "tests.lua.tiny"

local stop, signal = pg.stop, pg.signal

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
  it("goes on at 50, 60 and 70 thousand steps of the paper's table, and stops at 80", function()
    local step, reason = replay(stop.gradient_angle(), paper_events())
    assert.equal(80000, step)
    assert.equal("gradient angle -0.0668 is below -0.05", reason)
    assert.is_nil(replay(stop.gradient_angle(), paper_events(79000)))
  end)

  it("needs the paper's signal unless told otherwise", function()
    local needed = stop.gradient_angle().needs[1]
    assert.same({ block = 5, time = { 0.02, 0.1, 0.5, 0.8 }, images = 2048, from = 50000, every = 10000,
      name = "gradient_angle", ema = false }, needed.settings)
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
    assert.matches("stop%.at_step: 2%.5 is no step number", message_of(stop.at_step, 2.5))
    assert.matches("stop%.at_step: nil is no step number", message_of(stop.at_step))
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
    assert.matches("time 1%.5 is not between 0 and 1", message_of(signal.gradient_angle, { time = { 1.5 } }))
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
