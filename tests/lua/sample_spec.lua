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
  every = { checkpoint = 1 }, keep = 2,
  sample = { count = 4, steps = 3, seed = 5, labels = { 3, 1 } },
}
]]

describe("perigee sample", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

  --- Runs a command in whose text @ stands for the folder.
  local function perigee(text) return tiny.perigee((text:gsub("@", in_folder()))) end

  setup(function()
    files.write(in_folder "tiny.lua", recipe)
    for _, options in ipairs { "", "--name other --seed 7" } do
      local status, text = perigee("train @/tiny.lua --runs @/runs --quiet " .. options)
      assert.equal(0, status, text)
    end
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

  it("guides some channels, and by another run", function()
    local function draw(name, options)
      local status, text = perigee(("sample @/runs/tiny %s --out @/out/%s.png"):format(options, name))
      assert.equal(0, status, text)
      return files.read(in_folder("out/" .. name .. ".png"))
    end
    local plain, guided = draw("plain", ""), draw("guided", "--cfg 4")
    assert.are_not.equal(plain, guided)
    assert.equal(guided, draw("all", "--cfg 4 --cfg-channels 3"))
    local one = draw("one", "--cfg 4 --cfg-channels 1")
    assert.is_true(one ~= guided and one ~= plain)
    assert.equal(plain, draw("itself", "--cfg 4 --guide @/runs/tiny")) -- v + 4·(v − v)
    local by_other = draw("other", "--cfg 4 --guide @/runs/other")
    assert.is_true(by_other ~= guided and by_other ~= plain)
    assert.are_not.equal(plain, draw("shifted", "--shift 3"))
  end)

  it("fills a folder, and continues where it was", function()
    local status = perigee "sample @/runs/tiny --count 3 --out @/pictures"
    assert.equal(0, status)
    local first = files.read(in_folder "pictures/000002.png")
    for _, name in ipairs { "000001.png", "samples.json" } do -- as a kill leaves them
      files.write(in_folder("pictures/%s.tmp-1-0"):format(name), "")
    end
    local _, text = perigee "sample @/runs/tiny --count 5 --out @/pictures --batch 2"
    assert.truthy(text:find "3 samples are there already", text)
    for _, name in ipairs(files.list(in_folder "pictures")) do assert.is_nil(name:match "%.tmp", name) end
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

  it("takes nothing for its own that other weights made, at an equal step and with equal settings", function()
    for _, out in ipairs { "@/of_one", "@/of_one.npz" } do
      perigee("sample @/runs/tiny --count 2 --out " .. out)
      if out:find "npz" then -- as if it had been interrupted
        os.rename(in_folder "of_one.npz", in_folder "of_one.npz.part")
      end
      local status, text = perigee("sample @/runs/other --count 4 --out " .. out)
      assert.equal(1, status)
      assert.truthy(text:find("made with other settings or weights", 1, true), text)
      status, text = perigee("sample @/runs/tiny --no-ema --count 4 --out " .. out)
      assert.equal(1, status, text)
    end
    os.remove(in_folder "of_one/samples.json")
    os.remove(in_folder "of_one.npz.json")
    for out, there in pairs { ["@/of_one"] = "/000000.png", ["@/of_one.npz"] = ".part" } do
      local status, text = perigee("sample @/runs/tiny --count 4 --out " .. out)
      assert.equal(1, status)
      assert.truthy(text:find(there .. " is there, but not ", 1, true), text)
    end
  end)

  it("does not take an older checkpoint where the newest is damaged", function()
    os.execute(("cp -r %s %s"):format(in_folder "runs/tiny", in_folder "runs/damaged"))
    local newest = in_folder "runs/damaged/checkpoints/step-0000002.safetensors"
    local whole, at = files.read(newest), nil
    local file = require("perigee.io.safetensors").open(newest)
    for _, name in ipairs(file.names) do at = name:match "^ema%.student" and file.entries[name].offset or at end
    local flipped = whole:sub(1, at) .. string.char((whole:byte(at + 1) + 1) % 256) .. whole:sub(at + 2)
    for k, damaged in ipairs { whole:sub(1, -2), flipped } do
      files.write(newest, damaged)
      for _, command in ipairs { "sample", "eval" } do
        local status, text = perigee(command .. " @/runs/damaged")
        assert.equal(1, status)
        assert.truthy(text:find "step%-0000002", text)
        local advice = "the newest sound checkpoint is "
          .. in_folder "runs/damaged/checkpoints/step-0000001.safetensors"
        assert.truthy(text:find(k == 1 and advice or "is damaged: its bytes have the CRC-32", 1, true), text)
      end
    end
    local status, text = perigee "sample @/runs/damaged/checkpoints/step-0000001.safetensors --out @/out/older.png"
    assert.equal(0, status, text)
  end)

  it("refuses a grid that no PNG can hold before it draws", function()
    local status, text = perigee "sample @/runs/tiny --count 600 --columns 600 --out @/out/wide.png"
    assert.equal(1, status)
    assert.truthy(text:find("a grid of 1 rows and 600 columns has 19200x32 pixels (width x height), a PNG has at most "
      .. "16384x16384; draw fewer", 1, true), text)
    assert.falsy(text:find("step 1/600", 1, true), text)
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

  it("makes no folder of a file's name", function()
    for _, name in ipairs { "s.jpg", "s.NPY", "s.pt" } do
      local status, text = perigee("sample @/runs/tiny --out @/" .. name)
      assert.equal(1, status)
      assert.truthy(text:find(name .. ": expected FILE.png, FILE.npz, FILE.npy, or a folder (", 1, true), text)
      assert.is_false(files.exists(in_folder(name)))
    end
    assert.equal(0, perigee "sample @/runs/tiny --count 1 --out @/s.jpg/") -- if that is meant
    assert.is_true(files.exists(in_folder "s.jpg/000000.png"))
    assert.equal(0, perigee "sample @/runs/tiny --count 1 --out @/version-1.25")
  end)

  it("tells mistakes in one line", function()
    for command, message in pairs {
      ["sample @/runs/tiny --sampler foo"] = "unknown sampler 'foo'; expected one of ddim, ddpm, dopri5, ",
      ["sample @/runs/none"] = "no run or checkpoint at",
      ["sample @/runs"] = "/runs is not a run: recipe.lua is missing",
      ["sample @/runs/tiny/config.json"] = "config.json is not a run's checkpoint; expected RUN/checkpoints/",
      ["sample @/runs/tiny --guide @/runs/other"] = "sample: guide does nothing with cfg = 1; expected another scale",
      ["sample @/runs/tiny --cfg 2 --guide @/runs/none"] = "no run or checkpoint at",
      ["sample @/runs/tiny --cfg 2 --cfg-channels 4"] = "sample: cfg_channels is 4; the student has 3 channels",
      ["sample @/runs/tiny --sampler dopri5 --shift 3"] = "'shift' is an option of euler, heun, sde; dopri5 has atol",
      ["sample @/runs/tiny --interval 1"] = "expected LOW:HIGH",
      ["sample @/runs/tiny --labels 1,9"] = "--labels 1,9: expected balanced, drawn, data, or numbers from 0 to 7",
      ["sample @/runs/tiny --labels 0.5"] = "--labels 0.5: expected",
      ["sample @/runs/tiny --labels ,"] = "--labels ,: expected",
      ["sample @/runs/tiny --steps 0"] = "--steps: 0 is too small, the least is 1",
      ["sample @/runs/tiny --count 0"] = "--count: 0 is too small, the least is 1",
      ["sample @/runs/tiny --sampler huen"] = 'did you mean "heun"?',
      ["sample @/runs/tiny --sampler dopri5 --steps 9"] =
        "sample: 'steps' is an option of ddim, ddpm, euler, heun, sde; dopri5 has atol, rtol",
      ["sample @/runs/tiny --rtol 1e-3"] = "sample: 'rtol' is an option of dopri5; euler has shift, steps",
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

describe("samples of latents without a decoder", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)
  local function perigee(text) return tiny.perigee((text:gsub("@", in_folder()))) end
  local npy = require "perigee.io.npy"

  setup(function()
    files.write(in_folder "latents.lua", [[
local pg = require "perigee"
return pg.recipe {
  name = "latents", sample = { count = 3, steps = 2 }, every = { sample = 1 },
  student = pg.models.sit { depth = 1, width = 32, heads = 1, patch = 4, size = 8, channels = 4, classes = 2 },
  data = pg.data.arrays { images = pg.full({ 4, 4, 8, 8 }, 0.5), labels = pg.tensor({ 0, 1, 0, 1 }, "int64"),
                          classes = 2, batch = 2 },
  stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(1) } },
  optim = pg.optim.adamw { lr = 1e-2 },
}]])
  end)

  it("are arrays: previews, and what the command writes", function()
    local status, text = perigee "train @/latents.lua --runs @/runs"
    assert.equal(0, status, text)
    assert.falsy(text:find("no samples", 1, true), text)
    local preview = npy.load(in_folder "runs/latents/samples/step-0000001.npy")
    assert.same({ "float32", 3, 4, 8, 8 }, { preview.dtype, unpack(preview.shape) })
    for _, command in ipairs { "sample @/runs/latents", "sample @/runs/latents --out @/x.npz" } do
      status, text = perigee(command)
      assert.equal(0, status, text)
    end
    assert.same(preview:totable(), npy.load(in_folder "runs/latents/samples/sample.npy"):totable())
    assert.equal("PK", files.read(in_folder "x.npz"):sub(1, 2))
    for command, message in pairs {
      ["sample @/runs/latents --out @/x.png"] = "x.png: the samples are latents [4,8,8], which are no pictures; give",
      ["sample @/runs/latents --out @/folder"] = "folder: the samples are latents [4,8,8]",
      ["eval @/runs/latents --against train"] = "its samples are latents [4,8,8], and judges look at pictures",
    } do
      status, text = perigee(command)
      assert.equal(1, status)
      assert.truthy(text:find(message, 1, true), text)
    end
  end)
end)
