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
  sample = { count = 4, steps = 2 },
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

  it("writes a grid", function()
    local status, text = perigee "sample @/runs/tiny --count 6 --columns 3 --out @/out/grid.png"
    assert.equal(0, status, text)
    assert.same({ 64, 96, 3 }, require("perigee.io.png").load(in_folder "out/grid.png").shape)
  end)

  it("fills a folder, and goes on where it was", function()
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
      ["sample @/runs/tiny --sampler foo"] = "there are euler, heun and sde",
      ["sample @/runs/none"] = "there is no run or checkpoint",
      ["sample @/runs/tiny --interval 1"] = "expected LOW:HIGH",
      ["sample @/runs/tiny --labels 1,9"] = "--labels 1,9: expected balanced, drawn, or numbers from 0 to 7",
      ["sample @/runs/tiny --labels 0.5"] = "--labels 0.5: expected",
      ["sample @/runs/tiny --labels ,"] = "--labels ,: expected",
      ["sample @/runs/tiny --steps 0"] = "--steps 0: at least 1",
      ["sample @/runs/tiny --count 0"] = "at least 1",
    } do
      local status, text = perigee(command)
      assert.equal(1, status, text)
      assert.truthy(text:find(message, 1, true), text)
      assert.falsy(text:find "traceback", text)
    end
  end)
end)
