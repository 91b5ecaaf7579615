-- perigee sample: where samples go, and how an interrupted set is taken up again.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local program = (os.getenv "PERIGEE_BUILD" or core.home .. "/build") .. "/runtime/perigee"
local folder

local function shell(command)
  local pipe = assert(io.popen(("cd '%s' && OMP_NUM_THREADS=1 '%s' %s 2>&1; echo \"status $?\""):format(folder, program, command)))
  local text = pipe:read "*a"
  pipe:close()
  return text, tonumber(text:match "status (%d+)%s*$")
end

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
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(require("lfs").mkdir(folder))
    files.write(folder .. "/tiny.lua", recipe)
    local text, status = shell "train tiny.lua --quiet"
    assert.equal(0, status, text)
  end)
  teardown(function() os.execute(("rm -rf '%s'"):format(folder)) end)

  it("writes a grid", function()
    local text, status = shell "sample runs/tiny --count 6 --columns 3 --out out/grid.png"
    assert.equal(0, status, text)
    assert.same({ 64, 96, 3 }, require("perigee.io.png").load(folder .. "/out/grid.png").shape)
  end)

  it("fills a folder, and goes on where it was", function()
    local _, status = shell "sample runs/tiny --count 3 --out pictures"
    assert.equal(0, status)
    local first = files.read(folder .. "/pictures/000002.png")
    local text = shell "sample runs/tiny --count 5 --out pictures --batch 2"
    assert.truthy(text:find "3 samples are there already", text)
    assert.equal(first, files.read(folder .. "/pictures/000002.png"))
    shell "sample runs/tiny --count 5 --out again"
    for k = 0, 4 do
      local name = ("/%06d.png"):format(k)
      assert.equal(files.read(folder .. "/again" .. name), files.read(folder .. "/pictures" .. name))
    end
    text, status = shell "sample runs/tiny --count 6 --out pictures --seed 9"
    assert.equal(1, status)
    assert.truthy(text:find "other settings", text)
  end)

  it("writes an .npz with the settings beside it", function()
    local text, status = shell "sample runs/tiny --count 5 --batch 2 --out s.npz --labels drawn"
    assert.equal(0, status, text)
    assert.equal("drawn", json.decode(files.read(folder .. "/s.npz.json"), "s.npz.json").labels)
    assert.equal("PK", files.read(folder .. "/s.npz"):sub(1, 2))
    text, status = shell "sample runs/tiny --count 5 --out s.npz"
    assert.equal(1, status)
    assert.truthy(text:find "is there already", text)
  end)

  it("tells mistakes in one line", function()
    for command, message in pairs {
      ["sample runs/tiny --sampler foo"] = "there are euler, heun and sde",
      ["sample runs/none"] = "there is no run or checkpoint",
      ["sample runs/tiny --interval 1"] = "expected LOW:HIGH",
      ["sample runs/tiny --labels 9"] = "label 9",
      ["sample runs/tiny --count 0"] = "at least 1",
    } do
      local text, status = shell(command)
      assert.equal(1, status, text)
      assert.truthy(text:find(message, 1, true), text)
      assert.falsy(text:find "traceback", text)
    end
  end)
end)
