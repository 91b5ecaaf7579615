-- perigee sample: where samples go, and how an interrupted set is taken up again.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local recipe = [[
local pg = require "perigee"
return pg.recipe {
  name = "tiny", ema = 0.5,
  student = pg.models.sit { depth = 1, width = 32, heads = 1, patch = 8, size = 32, channels = 3, classes = 8 },
  data = pg.data.shapes { batch = 4, count = 16 },
  stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(2) } },
  optim = pg.optim.adamw { lr = 3e-2 },
  sample = { count = 4, steps = 3, seed = 5, labels = { 3, 1 } },
}
]]

describe("perigee sample", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

  --- Runs a command in whose text @ stands for the folder.
  local function perigee(text) return tiny.perigee((text:gsub("@", in_folder()))) end

  setup(function()
    files.write(in_folder "tiny.lua", recipe)
    local status, text = perigee "train @/tiny.lua --runs @/runs --quiet"
    assert.equal(0, status, text)
  end)

  it("draws what the run drew at that step: from the averages, with the recipe's settings", function()
    local status, text = perigee "sample @/runs/tiny --out @/out/own.png"
    assert.equal(0, status, text)
    local drawn = files.read(in_folder "runs/tiny/samples/step-0000002.png")
    assert.equal(drawn, files.read(in_folder "out/own.png"))
    perigee "sample @/runs/tiny --out @/out/raw.png --no-ema" -- which differ
    assert.are_not.equal(drawn, files.read(in_folder "out/raw.png"))
  end)

  it("takes any sampler with its own options", function()
    for k, options in ipairs { "--sampler dopri5", "--sampler dopri5 --rtol 1e-1 --atol 1e-1", "--sampler heun" } do
      local status, text = perigee(("sample @/runs/tiny %s --out @/out/%d.png"):format(options, k))
      assert.equal(0, status, text)
    end
    assert.are_not.equal(files.read(in_folder "out/1.png"), files.read(in_folder "out/2.png"))
  end)

  it("writes a grid", function()
    local status, text = perigee "sample @/runs/tiny --count 6 --columns 3 --out @/out/grid.png"
    assert.equal(0, status, text)
    assert.same({ 64, 96, 3 }, require("perigee.io.png").load(in_folder "out/grid.png").shape)
  end)

  it("fills a folder, and continues where it was", function()
    local status = perigee "sample @/runs/tiny --count 3 --out @/pictures"
    assert.equal(0, status)
    local first = files.read(in_folder "pictures/000002.png")
    local _, text = perigee "sample @/runs/tiny --count 5 --out @/pictures --batch 2"
    assert.truthy(text:find "3 samples are there already", text)
    assert.equal(first, files.read(in_folder "pictures/000002.png"))
    perigee "sample @/runs/tiny --count 5 --out @/again"
    for k = 0, 4 do
      local name = ("/%06d.png"):format(k)
      assert.equal(files.read(in_folder "again" .. name), files.read(in_folder "pictures" .. name))
    end
    status, text = perigee "sample @/runs/tiny --count 6 --out @/pictures --seed 9"
    assert.equal(1, status)
    assert.truthy(text:find "other settings", text)
  end)

  it("writes an .npz with the settings beside it", function()
    local status, text = perigee "sample @/runs/tiny --count 5 --batch 2 --out @/s.npz --labels drawn"
    assert.equal(0, status, text)
    assert.equal("drawn", json.decode(files.read(in_folder "s.npz.json"), "s.npz.json").labels)
    assert.equal("PK", files.read(in_folder "s.npz"):sub(1, 2))
    status, text = perigee "sample @/runs/tiny --count 5 --out @/s.npz"
    assert.equal(1, status)
    assert.truthy(text:find "is there already", text)
  end)

  it("tells mistakes in one line", function()
    for command, message in pairs {
      ["sample @/runs/tiny --sampler foo"] = "unknown sampler 'foo'; expected one of dopri5, euler, heun, sde",
      ["sample @/runs/none"] = "no run or checkpoint at",
      ["sample @/runs/tiny --interval 1"] = "expected LOW:HIGH",
      ["sample @/runs/tiny --labels 1,9"] = "--labels 1,9: expected balanced, drawn, or numbers from 0 to 7",
      ["sample @/runs/tiny --labels 0.5"] = "--labels 0.5: expected",
      ["sample @/runs/tiny --labels ,"] = "--labels ,: expected",
      ["sample @/runs/tiny --steps 0"] = "--steps: 0 is too small, the least is 1",
      ["sample @/runs/tiny --count 0"] = "--count: 0 is too small, the least is 1",
      ["sample @/runs/tiny --sampler huen"] = 'did you mean "heun"?',
      ["sample @/runs/tiny --sampler dopri5 --steps 9"] =
        "sample: 'steps' is an option of euler, heun, sde; dopri5 has atol, rtol",
      ["sample @/runs/tiny --rtol 1e-3"] = "sample: 'rtol' is an option of dopri5; euler has steps",
      ["sample @/runs/tiny --sampler dopri5 --rtol inf"] = "expected a number from 0",
      ["sample @/runs/tiny --cfg -1"] = "--cfg: -1 is too small, the least is 0",
      ["sample @/runs/tiny --interval 0.9:0.1"] = "expected { low, high } with low <= high",
      ["sample @/runs/tiny --interval 0.9:1.1"] = "expected 2 numbers from 0 to 1",
    } do
      local status, text = perigee(command)
      assert.equal(1, status, text)
      assert.truthy(text:find(message, 1, true), text)
      assert.falsy(text:find "traceback", text)
    end
  end)
end)
