-- Data that are not what they were: other files at a resume, and a record that makes a loss NaN.
local core = require "perigee.core.ffi"
local events = require "perigee.record.events"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local pg = require "perigee"
local png = require "perigee.io.png"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function trained(data, steps, resume)
  local recipe = pg.recipe {
    name = "changed", data = data,
    student = pg.models.sit { depth = 1, width = 32, heads = 1, patch = 4, size = 8, channels = data.channels,
                              classes = 2 },
    stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(9) } },
    optim = pg.optim.adamw { lr = 1e-3 },
  }
  local run = train.train(recipe, { folder = in_folder "run", quiet = true, steps = steps, resume = resume })
  run:free()
  return run.step
end

local function picture(name, value)
  files.make_folder((files.split(in_folder("data/" .. name))))
  png.save(in_folder("data/" .. name), pg.full({ 8, 8, 3 }, value, "uint8"))
end

local function folder() return pg.data.folder { dir = in_folder "data", classes = 2, size = 8, batch = 2 } end

describe("at a resume", function()
  local warning

  local function resume(steps)
    warning = nil
    local step = trained(folder(), steps, true)
    for _, event in ipairs(events.read(in_folder "run")) do
      if event.event == "warning" and event.about == "data" then warning = event.message end
    end
    return step
  end

  before_each(function()
    for k, name in ipairs { "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png" } do picture(name, 20 * k) end
    trained(folder(), 1)
  end)

  it("the same data are not spoken of, wherever they lie", function()
    os.execute(("cd %s && cp -r data copy && rm -r data && mv copy data"):format(in_folder()))
    assert.equal(2, resume(2))
    assert.is_nil(warning)
  end)

  it("a picture more is a line and an event", function()
    picture("dog/3.png", 1)
    assert.equal(2, resume(2))
    assert.equal("the data are not those of the checkpoint: 4 samples then, 5 now", warning)
    local status, text = tiny.perigee("compare " .. in_folder "run")
    assert.equal(0, status, text)
  end)

  it("pictures of other names are too", function()
    files.rename(in_folder "data/dog/1.png", in_folder "data/dog/9.png")
    assert.equal(2, resume(2))
    assert.equal("the data are not those of the checkpoint: 4 samples as before, but with other content", warning)
  end)

  it("classes of other names or another order are an error, and touch nothing", function()
    files.rename(in_folder "data/cat", in_folder "data/zebra") -- dog is label 0 now
    local before = files.read(in_folder "run/events.jsonl")
    local message = expect.message_of(resume, 2)
    assert.matches("step-0000001.safetensors was trained with the classes cat, dog; the data now have dog, zebra",
      message, 1, true)
    assert.equal(before, files.read(in_folder "run/events.jsonl"))
    files.rename(in_folder "data/zebra", in_folder "data/cat")
    assert.equal(2, resume(2))
  end)
end)

describe("a record that is not finite", function()
  it("is named when it makes a loss NaN, at every resume too", function()
    local latents = pg.full({ 6, 4, 8, 8 }, 0.5)
    latents:narrow(1, 4, 1):narrow(2, 2, 1):fill_(0 / 0)
    local function data()
      return pg.data.arrays { images = latents, labels = pg.tensor({ 0, 1, 0, 1, 0, 1 }, "int64"), classes = 2,
        batch = 2 }
    end
    for _ = 1, 2 do
      assert.matches("is nan: the data set's field 'latents' holds NaN or infinity in sample 3; the run stops",
        expect.message_of(trained, data(), 9, true), 1, true)
    end
    pg.save(in_folder "x.npy", latents)
    assert.matches(("in sample 3 (%s); the run stops"):format(in_folder "x.npy"), expect.message_of(trained,
      pg.data.arrays { images = in_folder "x.npy", labels = pg.tensor({ 0, 1, 0, 1, 0, 1 }, "int64"), classes = 2,
        batch = 2, memory = 1 }, 9, true), 1, true)
  end)
end)
