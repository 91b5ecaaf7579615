-- Schedules: numbers that change with the step, as weights of losses, learning rates and decays.
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local schedules = require "perigee.schedules"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(require("perigee.core.ffi").home .. "/tests/lua/folder.lua")(before_each, after_each)
local schedule = pg.schedule

local function values(s, ...)
  local list = {}
  for k, step in ipairs { ... } do list[k] = s:at(step) end
  return list
end

local function near(expected, actual)
  for k, value in ipairs(expected) do assert.is_true(math.abs(value - actual[k]) < 1e-12, tostring(actual[k])) end
end

describe("a schedule", function()
  it("goes from one value to another", function()
    local ramp = { from = 0.5, to = 0.1, begin = 10, finish = 20 }
    near({ 0.5, 0.5, 0.42, 0.3, 0.1, 0.1 }, values(schedule.linear(ramp), 1, 10, 12, 15, 20, 99))
    near({ 0.5, 0.5, 0.3, 0.1, 0.1 }, values(schedule.cosine(ramp), 1, 10, 15, 20, 99))
    near({ 0.1 + 0.2 * (1 + math.cos(math.pi * 0.2)) }, values(schedule.cosine(ramp), 12))
    near({ 0.5, 0.5 * 0.2 ^ 0.2, math.sqrt(0.05), 0.1 }, values(schedule.exponential(ramp), 10, 12, 15, 20))
    near({ 1, 1, 0.5, 0.5, 0 }, values(schedule.step { values = { 1, 0.5, 0 }, at = { 5, 9 } }, 1, 4, 5, 8, 9))
    assert.equal("linear 0.5 to 0.1, steps 10 to 20", tostring(schedule.linear(ramp)))
    assert.equal("step 1, 0.5 from step 5, 0 from step 9",
      tostring(schedule.step { values = { 1, 0.5, 0 }, at = { 5, 9 } }))
  end)

  it("of averages follows the steps so far until it is the decay", function()
    local averages = schedule.averages { decay = 0.99 }
    near({ 2 / 11, 3 / 12, 0.5, 0.99, 0.99 }, values(averages, 1, 2, 8, 890, 10000))
    assert.is_true(averages:at(889) < 0.99)
    local recipe = tiny.recipe()
    assert.equal(0.9, recipe.ema) -- as it says
    local function with(ema)
      return pg.recipe { name = "r", student = recipe.student, data = recipe.data, ema = ema,
        stages = { { name = "s", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(1) } } }.ema
    end
    assert.equal("averages 0.9999, (1 + k)/(10 + k) at step k until then", tostring(with(nil)))
    assert.equal(0.9999, with(0.9999))
  end)

  it("says what share of the first weights averages still are", function()
    local young = require "perigee.sampling.averages"
    assert.near(2 / 11 * 3 / 12 * 4 / 13, young.first_share(schedule.averages {}, 3), 1e-12)
    assert.near(0.9999 ^ 200, young.first_share(0.9999, 200), 1e-12)
    assert.matches("after 200 steps the moving averages %(ema = 0.9999%) are still 98 %% the first weights",
      young.remark(0.9999, 200))
    assert.is_nil(young.remark(0.9999, 10001))
    assert.is_nil(young.remark(schedule.averages {}, 1))
    assert.is_nil(young.remark(0.9999, 0))
    local status, text = tiny.perigee(("train %s --total 3 --align 2 --weights %s --runs %s"):format(
      tiny.quote(tiny.path), tiny.quote(require("perigee.core.ffi").home
      .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"), tiny.quote(in_folder())))
    assert.equal(0, status, text)
    assert.matches("note: after 3 steps the moving averages %(ema = 0.9%) are still 73 %%", text)
    local _, sampled = tiny.perigee(("sample %s --count 1"):format(tiny.quote(in_folder "tiny")))
    assert.matches("are still 73 %%", sampled)
    _, sampled = tiny.perigee(("sample %s --count 1 --no-ema"):format(tiny.quote(in_folder "tiny")))
    assert.is_nil(sampled:find "still")
  end)

  it("is made again from plain data", function()
    local cosine = schedule.cosine { from = 1, to = 0, finish = 7 }
    for _, s in ipairs { cosine, schedule.averages { decay = 0.9 }, schedule.step { values = { 1, 2 }, at = { 3 } } } do
      local again = schedules.of(json.decode(json.encode(schedules.plain(s))))
      assert.equal(s.text, again.text)
      assert.same(values(s, 1, 2, 3, 4), values(again, 1, 2, 3, 4))
    end
    assert.equal(3, schedules.of(schedules.plain(3)))
    assert.same({ 0.9, 0.99 }, schedules.of(schedules.plain { 0.9, 0.99 }))
  end)

  it("says what is wrong with its options", function()
    for message, f in pairs {
      ["schedule.linear: option 'to' is missing"] = function() schedule.linear { from = 1, finish = 3 } end,
      ["schedule.linear: option 'finish' is missing"] = function() schedule.linear { from = 1, to = 0 } end,
      ["it begins at step 9 and finishes at step 9"] = function()
        schedule.linear { from = 1, to = 0, begin = 9, finish = 9 }
      end,
      ["expected both above 0"] = function() schedule.exponential { from = 1, to = 0, finish = 9 } end,
      ["2 values and 2 steps; expected one value more"] = function()
        schedule.step { values = { 1, 2 }, at = { 3, 4 } }
      end,
      ["expected rising steps"] = function() schedule.step { values = { 1, 2, 3 }, at = { 4, 4 } } end,
      ["did you mean \"cosine\"?"] = function() return schedule.cosin end,
      ["lr (linear 0.0001 to -1, steps 0 to 9) is a number (-1); expected a number from 0"] = function()
        pg.optim.adamw { lr = schedule.linear { from = 1e-4, to = -1, finish = 9 } }
      end,
      ["for a rate that changes, set warmup, or write pg.schedule.cosine"] = function()
        pg.optim.adamw { lr = function() return 1 end }
      end,
    } do
      local found = message_of(f)
      assert.truthy(found:find(message, 1, true), found)
    end
  end)
end)

describe("a run with schedules", function()
  --- The tiny recipe with another weight of the feature loss, rate and decay.
  local function recipe(weight, lr, ema, options)
    local source = files.read(tiny.path)
    local function put(pattern, text)
      local count
      source, count = source:gsub(pattern, text)
      assert(count == 1, pattern)
    end
    put("{ 0%.5, features }", ("{ %s, features }"):format(weight))
    put("lr = o%.lr", "lr = " .. lr)
    put("ema       = 0%.9", "ema = " .. ema)
    files.write(in_folder "recipe.lua", source)
    local given = { weights = require("perigee.core.ffi").home
      .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors" }
    for key, value in pairs(options or {}) do given[key] = value end
    return require("perigee.recipe.load").load(in_folder "recipe.lua", { values = given }).value
  end
  local WEIGHT = "pg.schedule.linear { from = 0.5, to = 0, begin = 2, finish = 6 }"
  local RATE = "pg.schedule.step { values = { 1e-3, 5e-4 }, at = { 3 } }"
  local DECAY = "pg.schedule.exponential { from = 0.5, to = 0.9, finish = 4 }"

  local function train(given, how)
    how.recipe = given
    return tiny.train({}, how)
  end

  it("computes each step with the numbers of that step, through a resume", function()
    local by_hand = train(recipe("0.5", "1e-3", "0.5"), { folder = in_folder "hand", steps = 0, keep = true })
    for step = 1, 5 do
      by_hand.stage.losses.features.weight = ({ 0.5, 0.5, 0.375, 0.25, 0.125 })[step]
      by_hand.optim.lr = step >= 3 and 5e-4 or 1e-3
      by_hand:set_ema(step >= 4 and 0.9 or 0.5 * (0.9 / 0.5) ^ (step / 4))
      by_hand:advance()
    end
    local tensors = {}
    for name, t in pairs(by_hand:tensors()) do tensors[name] = t:totable() end
    by_hand:free()
    train(recipe(WEIGHT, RATE, DECAY), { folder = in_folder "run", steps = 3 })
    local run = train(recipe(WEIGHT, RATE, DECAY), { folder = in_folder "run", steps = 5, resume = true, keep = true })
    for name, t in pairs(run:tensors()) do assert.same(tensors[name], t:totable(), name) end
    run:free()
    local config = json.read(in_folder "run/config.json")
    assert.same({ schedule = "linear", options = { from = 0.5, to = 0, begin = 2, finish = 6 } },
      config.stages[1].losses[2].weight)
    assert.equal("step", config.optim.lr.schedule)
    local stage_line = require("perigee.recipe.describe").losses(recipe(WEIGHT, RATE, DECAY).stages[1])
    assert.equal("1·denoise + (linear 0.5 to 0, steps 2 to 6)·features + 0.5·attention", stage_line)
  end)

  it("keeps a number that was set by hand, until the recipe has another schedule", function()
    local run = train(recipe(WEIGHT, "1e-3", "0.5"), { folder = in_folder "run", steps = 2, keep = true })
    require("perigee.train.changes").make(run, "stage.losses.features.weight", 0.25, "run....weight = 0.25")
    require("perigee.record.checkpoint").save(run)
    run:free()
    local function weight_of(text)
      local again = train(recipe(text, "1e-3", "0.5"),
        { folder = in_folder "run", steps = 2, resume = true, keep = true })
      local weight = schedules.text(again.stage.losses.features.weight)
      again:free()
      return weight
    end
    assert.equal("0.25", weight_of(WEIGHT))
    local other = (WEIGHT:gsub("0%.5", "0.75"))
    assert.equal("linear 0.75 to 0, steps 2 to 6", weight_of(other))
  end)
end)
