-- What docs/adding-*.md tell to write: each page's file, from a folder on Lua's path, is found by its name and works.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pg = require "perigee"
local tensor = require "perigee.core.tensor"
local tiny = require "tests.lua.tiny"

--- The Lua of a page's first code block that returns something.
local function code_of(page)
  for code in files.read(("%s/docs/%s.md"):format(core.home, page)):gmatch "```lua\n(.-)```" do
    if code:find("return", 1, true) then return code end
  end
end

describe("a file that a page of docs tells to add", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)
  local path = package.path

  local function add(room, name, page)
    files.write(in_folder(("perigee/%s/%s.lua"):format(room, name)), code_of(page))
  end

  setup(function()
    for _, room in ipairs { "samplers", "models", "stops", "signals", "losses" } do
      files.make_folder(in_folder("perigee/" .. room))
    end
    add("samplers", "midpoint", "adding-a-sampler")
    add("models", "flat", "adding-a-model")
    add("stops", "below", "adding-a-stop")
    add("signals", "ratio", "adding-a-signal")
    add("losses", "dispersive", "adding-a-loss")
    package.path = in_folder "?.lua" .. ";" .. path
  end)

  teardown(function()
    package.path = path
    for _, module in ipairs { "samplers.midpoint", "models.flat", "stops.below", "signals.ratio",
      "losses.dispersive" } do package.loaded["perigee." .. module] = nil end
    for room, name in pairs { stop = "below", signal = "ratio", loss = "dispersive" } do rawset(pg[room], name, nil) end
    rawset(pg.sampler, "midpoint", nil)
    rawset(pg.models, "flat", nil)
    rawset(pg.models, "flat_16", nil)
  end)

  it("is a sampler: in recipes, commands and messages", function()
    local x = tensor.tensor({ 1, -2 }, { 2, 1 }, "float64")
    local function off(steps)
      local result = pg.sampler.integrate(function(state) return state end, x, { sampler = "midpoint", steps = steps })
      return math.abs(result:totable()[1][1] - math.exp(-1))
    end
    assert.near(4, off(20) / off(40), 0.2) -- of second order
    local sampling = require "perigee.recipe.sampling"
    local student = pg.models.sit { depth = 1, width = 16, heads = 1, size = 8 }
    assert.equal(7, sampling.settings("sample", { sampler = "midpoint", steps = 7 }, student).steps)
    local found = {}
    for _, option in ipairs(sampling.command_options()) do found[option.name] = option.help end
    assert.matches("midpoint", found.sampler)
    assert.matches("midpoint", found.steps)
  end)

  it("is a stop, a signal and a loss, in one stage that ends by them", function()
    local recipe = tiny.recipe { total = 40 }
    local stage = recipe.stages[1]
    stage.losses[2] = { name = "dispersive", weight = 0.5, loss = pg.loss.dispersive { block = 2 } }
    stage.finish = pg.stop.below { loss = "dispersive", bound = 1, times = 2 }
    stage.signals = { pg.signal.ratio { "dispersive", "denoise", every = 5 } }
    recipe.stages[2].finish = pg.stop.after(1)
    local run = tiny.train(nil, { recipe = recipe, folder = in_folder "run" })
    assert.equal(21, run.step) -- read at steps 10 and 20
    local ratios, reason = {}, nil
    for _, event in ipairs(require("perigee.record.events").read(in_folder "run")) do
      if event.name == "ratio" then ratios[#ratios + 1] = { event.step, event.value < 0 } end
      reason = reason or event.reason
    end
    assert.same({ { 5, true }, { 10, true }, { 15, true }, { 20, true } }, ratios)
    assert.matches("^dispersive %-[%d%.]+ is below 1$", reason)
    stage.signals = { pg.signal.ratio { "dispersive", "features" } }
    assert.has_error(function() recipe:validate() end)
    local policy = require "perigee.record.policy"
    local text = policy.write(stage.finish)
    assert.equal('stop.below({ bound = 1, loss = "dispersive", times = 2 })', text)
    assert.equal(text, policy.write(policy.read(text)))
  end)

  it("is a family of models that trains and samples", function()
    assert.same({ 16, 16 }, pg.models.flat_16().size)
    local recipe = pg.recipe {
      name = "flat", student = pg.models.flat { size = 32 }, data = pg.data.shapes { batch = 4, count = 16 },
      stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(2) } },
      sample = { count = 2, cfg = 2, sampler = "midpoint", steps = 2 },
    }
    local run = require("perigee.train").train(recipe, { quiet = true })
    local images = require("perigee.sampling.generate").all(recipe, recipe.sample)
    assert.same({ 2, 32, 32, 3 }, images.shape)
    run:free()
  end)
end)
