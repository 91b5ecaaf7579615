-- What a run's folder says of it: means in the log, the calls that made it, settings that changed between them.
local core = require "perigee.core.ffi"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

--- The `step` events of a folder's log.
local function steps_of(folder)
  local list = {}
  for _, event in ipairs(Events.read(in_folder(folder))) do
    if event.event == "step" then list[#list + 1] = event end
  end
  return list
end

describe("the log's losses", function()
  --- Trains with a line every `log` steps, in pieces that end at the given steps.
  local function trained(folder, log, ends)
    for _, step in ipairs(ends) do
      tiny.train({ align = 6, total = 11, checkpoint = 0 }, { folder = in_folder(folder), steps = step, resume = true,
        change = function(recipe) recipe.every.log = log end })
    end
    return steps_of(folder)
  end

  it("are means over the steps since the last line, and none spans two stages", function()
    local each, lines = trained("each", 1, { 20 }), trained("some", 4, { 20 })
    local from, found = 0, {}
    for k, line in ipairs(lines) do
      found[k] = { line.step, line.steps, line.stage }
      for name, mean in pairs(line.losses) do
        local sum = 0
        for step = from + 1, line.step do sum = sum + each[step].losses[name] end
        assert.near(sum / line.steps, mean, 1e-12)
      end
      local norms = 0
      for step = from + 1, line.step do norms = norms + each[step].gradient_norm end
      assert.near(norms / line.steps, line.gradient_norm, 1e-12)
      from = line.step
    end
    assert.same({ { 4, 4, "align" }, { 6, 2, "align" }, { 8, 2, "free" }, { 11, 3, "free" } }, found)
    assert.are_not.equal(lines[1].losses.denoise, each[4].losses.denoise)
  end)

  it("are the same if the run stopped between two lines", function()
    local function numbers(lines)
      for _, line in ipairs(lines) do line.images_per_second = nil end
      return json.encode(lines)
    end
    local whole = numbers(trained("whole", 4, { 20 }))
    assert.equal(whole, numbers(trained("pieces", 4, { 3, 5, 6, 9, 20 })))
    assert.is_true(tiny.checkpoint(in_folder "whole", 11) == tiny.checkpoint(in_folder "pieces", 11))
  end)
end)

local RECIPE = [[
local pg = require "perigee"
local o = pg.options { { "batch", 4, "images" }, { "lr", 1e-3, "rate" }, { "flip", false, "mirror" } }
return pg.recipe {
  name = "kept-" .. o.batch, optim = pg.optim.adamw { lr = o.lr }, ema = 0.9, sample = { count = 1, steps = 1 },
  student = pg.models.sit { depth = 1, width = 16, heads = 1, patch = 8, size = 32, channels = 3, classes = 8 },
  data = pg.data.shapes { batch = o.batch, count = 16, flip = o.flip },
  stages = {
    { name = "a", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(3) },
    { name = "b", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(9) },
  },
}
]]

describe("perigee train --resume", function()
  local function train(options)
    return tiny.perigee(("train %s --runs %s --name run %s"):format(tiny.quote(in_folder "kept.lua"),
      tiny.quote(in_folder()), options))
  end

  local function config() return json.read(in_folder "run/config.json") end

  --- The last `resume` event.
  local function resumed()
    local found
    for _, event in ipairs(Events.read(in_folder "run")) do found = event.event == "resume" and event or found end
    return found
  end

  before_each(function()
    files.write(in_folder "kept.lua", RECIPE)
    local status, text = train "--batch 8 --set lr=0.002 --flip --seed 5 --no-console --steps 1"
    assert.equal(0, status, text)
  end)

  it("remembers the options of the first call", function()
    local status, text = train "--resume --steps 2"
    assert.equal(0, status, text)
    assert.same({ recipe = { batch = 8, lr = 0.002, flip = true }, command = { seed = 5, console = false } },
      config().command)
    assert.same({ batch = 8, lr = 0.002, flip = true }, config().options)
    assert.equal(5, config().seed)
    assert.is_nil(resumed().changed)
    assert.is_false(files.exists(in_folder "run/before"))
  end)

  it("takes options that are given again, and keeps what they were", function()
    local first = files.read(in_folder "run/config.json")
    local status, text = train "--resume --lr 0.004 --no-flip --steps 2"
    assert.equal(0, status, text)
    assert.truthy(text:find("changed since: optim.lr is 0.004, was 0.002", 1, true), text)
    assert.same({ { name = "data.flip", before = "true", after = "false" },
      { name = "optim.lr", before = "0.002", after = "0.004" } }, resumed().changed)
    assert.equal(0.004, config().optim.lr)
    assert.same({ batch = 8, lr = 0.004, flip = false }, config().command.recipe)
    assert.equal(first, files.read(in_folder "run/before/step-0000001/config.json"))
    train "--resume --steps 3"
    assert.equal(0.004, config().optim.lr)
    status, text = train "--resume --batch 4"
    assert.equal(1, status)
    assert.truthy(text:find("was trained with batch 8, not 4", 1, true), text)
    status, text = tiny.perigee("compare " .. tiny.quote(in_folder "run"))
    assert.equal(0, status, text)
    assert.truthy(text:find("optim.lr   1: 0.002 to 0.004 (at a resume)", 1, true), text)
  end)

  it("lets an edited recipe decide what no call said", function()
    files.write(in_folder "kept.lua", (RECIPE:gsub("ema = 0.9", "ema = 0.8"):gsub('{ "flip", false, "mirror" }', "")
      :gsub(", flip = o.flip", "")))
    local status, text = train "--resume --steps 2"
    assert.equal(0, status, text)
    assert.same({ { name = "data.flip", before = "true", after = "false" },
      { name = "ema", before = "0.9", after = "0.8" } }, resumed().changed)
    assert.equal(RECIPE, files.read(in_folder "run/before/step-0000001/recipe.lua"))
    assert.equal(files.read(in_folder "kept.lua"), files.read(in_folder "run/recipe.lua"))
    assert.equal(0, tiny.perigee("sample " .. tiny.quote(in_folder "run")))
  end)

  it("finds the folder by the name that the options make", function()
    local function call(options)
      return tiny.perigee(("train %s --runs %s %s"):format(tiny.quote(in_folder "kept.lua"), tiny.quote(in_folder()),
        options))
    end
    assert.equal(0, (call "--set lr=0.003 --steps 1 --quiet")) -- runs/kept-4
    assert.equal(0, (call "--resume --steps 2 --quiet"))
    assert.equal(0.003, json.read(in_folder "kept-4/config.json").optim.lr)
    files.remove_tree(in_folder "kept-4")
    assert.equal(0, (call "--name kept-4 --batch 8 --steps 1 --quiet"))
    assert.equal(0, (call "--resume --steps 2 --quiet")) -- there, and not in the kept-8 of the remembered batch
    assert.equal(8, json.read(in_folder "kept-4/config.json").batch)
    assert.is_true(files.exists(in_folder "kept-4/checkpoints/step-0000002.safetensors"))
  end)

  it("says how long a stage that begins lasts, and nothing of memory that is not given back", function()
    local _, text = train "--resume --steps 5"
    assert.truthy(text:find("step 3: stage a ends (step 3 reached); stage b begins: 1·denoise; until at_step(9)\n", 1,
      true), text)
    assert.falsy(text:find "0.0 MiB", text)
  end)
end)
