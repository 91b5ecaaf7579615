-- What docs/adding-*.md tell to write: each page's file, from a folder on Lua's path, is found by its name and works.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pg = require "perigee"
local tensor = require "perigee.core.tensor"

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
    files.make_folder(in_folder "perigee/samplers")
    files.make_folder(in_folder "perigee/models")
    add("samplers", "midpoint", "adding-a-sampler")
    add("models", "flat", "adding-a-model")
    package.path = in_folder "?.lua" .. ";" .. path
  end)

  teardown(function()
    package.path = path
    for _, module in ipairs { "samplers.midpoint", "models.flat" } do package.loaded["perigee." .. module] = nil end
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
