-- A stop, a signal and a loss are one file each. Here such files lie elsewhere on Lua's path, and nothing else knows
-- them: they must do in recipes, at a console, in a resumed run, in a replay, in a plan.
local chunk = require "perigee.sandbox.chunk"
local checkpoint = require "perigee.record.checkpoint"
local complete = require "perigee.console.complete"
local control = require "perigee.console.control"
local door = require "perigee.core.ffi"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local limit = require "perigee.sandbox.limit"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local sandbox = require "perigee.console.sandbox"
local tiny = require "tests.lua.tiny"
local train = require("perigee.train").train

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local DEFINITIONS = {
  -- the quotient of two losses of the step
  ["signals/ratio"] = [[
    local check, core = require "perigee.core.check", require "perigee.core.ffi"
    return function(options)
      local o = check.options("signal.ratio", options,
        { [1] = "string", [2] = "string", from = { "natural", 0 }, every = { "count", 1 } })
      return {
        name = "ratio", settings = o, key = ("ratio %s %s %d %d"):format(o[1], o[2], o.from, o.every), of_step = true,
        check = function(_, stage)
          for k = 1, 2 do
            local found = false
            for _, entry in ipairs(stage.losses) do found = found or entry.name == o[k] end
            if not found then core.fail("signal.ratio: stage '%s' lacks '%s'", stage.name, o[k]) end
          end
        end,
        measure = function(_, run) return run.losses[o[1] ] / run.losses[o[2] ] end,
      }
    end]],
  -- ends the stage when that has been above a bound so many times
  ["stops/ratio"] = [[
    local check = require "perigee.core.check"
    local signals = require "perigee.signals"
    return function(over, under, options)
      local o = check.options("stop.ratio", options or {}, { above = { "number", 0 }, times = { "count", 1 } })
      return {
        needs = { signals.ratio { over, under, every = 2 } }, text = ("ratio(%s/%s, %d)"):format(over, under, o.times),
        first = function() return { seen = 0, sum = 0 } end,
        decide = function(_, event, state)
          if event.ratio == nil then return false, state end
          local seen = state.seen + (event.ratio > o.above and 1 or 0)
          return seen >= o.times, { seen = seen, sum = state.sum + event.ratio }, seen .. " times above"
        end,
      }
    end]],
  -- pushes a block's outputs apart
  ["losses/spread"] = [[
    local check = require "perigee.core.check"
    local ops = require "perigee.core.ops"
    return function(options)
      local o = check.options("loss.spread", options, { name = { "string", "spread" }, block = "count" })
      return {
        name = o.name, settings = { block = o.block },
        compute = function(_, context)
          local h = context:tap("block " .. o.block):flatten(2)
          return ops.log(ops.exp((h:unsqueeze(2) - h:unsqueeze(1)):square():mean(3) * -1):mean())
        end,
      }
    end]],
}

local path = package.path
before_each(function()
  for name, text in pairs(DEFINITIONS) do
    files.make_folder(in_folder("perigee/" .. name:match "^%a+"))
    files.write(in_folder(("perigee/%s.lua"):format(name)), text)
  end
  package.path = path .. ";" .. in_folder "?.lua"
end)
after_each(function()
  package.path = path
  for name in pairs(DEFINITIONS) do
    local room, thing = name:match "^(%a+)/(%a+)$"
    package.loaded[("perigee.%s.%s"):format(room, thing)] = nil
    require("perigee." .. room)[thing] = nil
  end
end)

--- Evaluates a text as a console in a run does; what it prints.
local function typed(run, text)
  local printed = {}
  local function say(line) printed[#printed + 1] = line end
  local environment = sandbox.environment({ run = control.run(run, function() return text end, nil, say) }, say)
  local fine, message = limit.run(1, assert(chunk.compile(text, environment)), chunk.handler(limit.is_users))
  assert(fine, message)
  return table.concat(printed)
end

--- Trains tiny.lua, whose first stage ends at step 20 at the latest; `at[step](run)` acts between two steps.
local function go(folder, at, how)
  local recipe = tiny.recipe { align = 20, total = 22, checkpoint = 5, keep = 9 }
  if how and how.change then how.change(recipe) end
  local function console(run)
    return { between_steps = function() if at[run.step] then at[run.step](run) end end, close = function() end }
  end
  local run = train(recipe, { folder = folder, quiet = true, resume = how and how.resume, console = console })
  run:free()
  return run
end

local function kill() error {} end -- no text: nothing is saved

--- The step and the reason of the first stage's end, from a run's log.
local function end_of(folder)
  for _, event in ipairs(Events.read(folder)) do
    if event.event == "stage" and event.from then return event.step, event.reason end
  end
end

--- The step at which a policy ends the first stage of a recorded run, asked from after step `from` on.
local function replayed(policy, folder, from, to)
  local by_step = {}
  for step = from + 1, to do by_step[step] = { step = step, stage = "align", stage_steps = step } end
  for _, event in ipairs(Events.read(folder)) do
    if event.event == "signal" and by_step[event.step] then by_step[event.step][event.name] = event.value end
  end
  local state = policy:initial()
  for step = from + 1, to do
    local finished, next_state, reason = policy:decide(by_step[step], json.decode(json.encode(state)))
    if finished then return step, reason end
    state = next_state
  end
end

local POLICIES = {
  "stop.ratio('features', 'denoise', { above = -100, times = 4 })",
  "stop.after(13)",
  "stop.after(8, stop.plateau { loss = 'denoise', every = 1, patience = 3, by = 10 })",
  "stop.stream_angle { below = 0.5, from = 0, every = 3, bins = 2, take = { 1, 2 } }",
  "stop.plateau { loss = 'denoise', every = 1, patience = 6, by = 10 }",
  "stop.plateau { of = signal.alignment_progress { from = 0, every = 2 }, field = 'features.cosine', by = 10, "
    .. "patience = 3 }",
  "stop.any(stop.all(stop.ratio('features', 'denoise', { above = -100 }), stop.after(12)), stop.at_step(17))",
  "stop.custom { needs = { signal.ratio { 'features', 'denoise', every = 3 } }, name = 'own', function(event, state) "
    .. "local n = (state.n or 0) + (event.ratio and 1 or 0) return n >= 3, { n = n } end }",
}

describe("loss.gram_alignment", function()
  local function with_gram(recipe)
    recipe.stages[1].losses[2] = { name = "gram", weight = 0.5, loss = pg.loss.gram_alignment { block = 2 } }
    recipe.stages[1].finish = pg.stop.any(pg.stop.plateau { loss = "gram", by = 10, patience = 3, every = 1 },
      pg.stop.after(9))
  end

  local function weigh(run) typed(run, "run.stage.losses.gram.weight = 2") end

  it("trains, is weighed at a console, keeps that through a kill, and reads a cached teacher", function()
    local whole, killed, cached = in_folder "whole", in_folder "killed", in_folder "cached"
    local run = go(whole, { [2] = weigh }, { change = with_gram })
    assert.is_true(run.finished)
    assert.equal(4, end_of(whole))
    assert.has_error(function() go(killed, { [2] = weigh, [3] = kill }, { change = with_gram }) end)
    go(killed, { [2] = weigh }, { change = with_gram, resume = true })
    assert.is_true(tiny.checkpoint(whole, 22) == tiny.checkpoint(killed, 22))
    go(cached, { [2] = weigh }, { change = function(recipe)
      with_gram(recipe)
      recipe.cache_teacher = { dtype = recipe.dtype, precision = recipe.precision, limit_gib = 1 }
    end })
    assert.is_true(tiny.checkpoint(whole, 22) == tiny.checkpoint(cached, 22))
    go(in_folder "light", {}, { change = with_gram })
    assert.is_false(tiny.checkpoint(whole, 22) == tiny.checkpoint(in_folder "light", 22))
  end)

  it("is refused for a block that isn't there", function()
    local recipe = tiny.recipe {}
    recipe.stages[1].losses[2] = { name = "gram", weight = 0.5, loss = pg.loss.gram_alignment { block = 4 } }
    assert.matches("loss 'gram': block 4 of a student with 3 blocks", message_of(recipe.validate, recipe))
  end)
end)

describe("a stop of one file", function()
  for number, text in ipairs(POLICIES) do
    it(("is typed into a run, kept through a kill, and replayed: %s"):format(text:match "^[^{]*"), function()
      local whole, killed = in_folder "whole", in_folder "killed"
      local function swap(run) typed(run, "run.stage.finish = " .. text) end
      local function change(recipe) -- block 2 is the last that is aligned
        recipe.stages[1].losses[3].loss = pg.loss.attention_alignment { student = { 1, 2 }, teacher = { 3, 4 } }
      end
      go(whole, { [3] = swap }, { change = change })
      local step, reason = end_of(whole)
      assert.is_true(step > 3 and step < 20, ("policy %d ended at %d"):format(number, step))
      for _, life in ipairs { 4, 8 } do -- before a checkpoint, so that the change is made again, and after one
        files.remove_tree(killed)
        assert.has_error(function() go(killed, { [3] = swap, [life] = kill }, { change = change }) end)
        go(killed, life == 4 and { [3] = swap } or {}, { resume = true, change = change })
        assert.same({ step, reason }, { end_of(killed) })
        assert.is_true(tiny.checkpoint(whole, 22) == tiny.checkpoint(killed, 22))
      end
      local policy = assert(loadstring("local stop, signal = ... return " .. text))(pg.stop, pg.signal)
      assert.same({ step, reason }, { replayed(policy, whole, 3, 20) })
    end)
  end

  it("stands in a recipe, with its signal and a loss of one file, and is described", function()
    local function change(recipe)
      recipe.stages[1].finish = pg.stop.ratio("spread", "denoise", { above = -100, times = 3 })
      recipe.stages[1].losses[2] = { name = "spread", weight = 0.5, loss = pg.loss.spread { block = 1 } }
      recipe.stages[1].signals = { pg.signal.ratio { "spread", "denoise", every = 2 } }
    end
    go(in_folder "run", {}, { change = change })
    assert.same({ 6, "3 times above" }, { end_of(in_folder "run") })
    local config = json.read(in_folder "run/config.json")
    assert.equal("ratio(spread/denoise, 3)", config.stages[1].finish)
    assert.same({ kind = "spread", name = "spread", settings = { block = 1 }, weight = 0.5 },
      config.stages[1].losses[2])
    assert.equal("ratio", config.stages[1].signals[1].kind)
    assert.is_true(checkpoint.open(in_folder "run").finished)
    local recipe = tiny.recipe {}
    change(recipe)
    assert.equal(2, #require("perigee.cost.price").recipe(recipe))
    recipe.stages[1].finish, recipe.stages[1].signals = pg.stop.ratio("spread", "nothing"), {}
    assert.matches("signal.ratio: stage 'align' lacks 'nothing'", message_of(recipe.validate, recipe))
  end)

  it("is found by its name, and a misspelt one is an error with the names that there are", function()
    assert.matches("unknown stop 'raio'; expected one of after, all, any, at_step, .*ratio, .*; did you mean "
      .. "\"ratio\"%?", message_of(function() return pg.stop.raio end))
    assert.matches("unknown loss 'gram'; .*gram_alignment", message_of(function() return pg.loss.gram end))
    assert.matches("unknown signal 'init'; expected one of .*, gradient_norm, .*, loss, .*ratio, ",
      message_of(function() return pg.signal.init end))
    assert.matches("unknown distribution of times 'unifrm'; .*did you mean \"uniform\"",
      message_of(function() return pg.time.unifrm end))
    assert.same({ "stop.ratio" }, complete.proposals("stop.rat", { { stop = pg.stop } }))
  end)

  it("is refused at a console where the stage can't measure what it needs, and the run continues", function()
    local message
    local run = go(in_folder "run", { [3] = function(run)
      message = message_of(typed, run, "run.stage.finish = stop.ratio('features', 'nothing')")
    end })
    assert.matches("signal.ratio: stage 'align' lacks 'nothing'", message)
    assert.equal(22, run.step)
  end)
end)
