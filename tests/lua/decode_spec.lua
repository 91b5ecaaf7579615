-- Latents to pictures: sampling/decoder.lua, `perigee decode`, `perigee sample --decode`, previews.
local core = require "perigee.core.ffi"
local decoders = require "perigee.sampling.decoder"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local memory = require "tests.lua.memory"
local models = require "perigee.models"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local pixels = require "perigee.sampling.pixels"
local png = require "perigee.io.png"
local tiny = require "tests.lua.tiny"
local weights = require "perigee.io.weights"

local fails = expect.fails
local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

--- An autoencoder without neighbours: every latent's pixel becomes a square.
local function local_autoencoder()
  return { name = "squares", latent = 3, pictures = 3, shrink = 2, scale = 0.5, shift = 1, decoder = true,
    is_materialised = function() return true end,
    decode = function(_, z) return pg.ops.upsample_nearest(z, 2) end }
end

local function as_it_is(x) return x:clone() end

describe("a decoder", function()
  it("undoes scale and shift, and takes a few latents at a time", function()
    local x = pg.randn(5, 3, 4, 6)
    local decoder = decoders.open(local_autoencoder(), { 4, 6 }, { batch = 2 })
    assert.same({ 8, 12, 3 }, decoder.shape)
    local pieces = {}
    local made = decoder:decode(x, function(part)
      pieces[#pieces + 1] = part.shape[1]
      return part:clone()
    end)
    assert.same({ 2, 2, 1 }, pieces)
    oracle.near("pictures", made, pg.ops.upsample_nearest(x * 2 + 1, 2), 1e-6)
    decoder:close()
  end)

  it("puts tiles together that fade into each other", function()
    local x = pg.randn(3, 3, 11, 8)
    local expected = pg.ops.upsample_nearest(x * 2 + 1, 2)
    for _, tile in ipairs { 4, 5, 8, 9, 16 } do
      local decoder = decoders.open(local_autoencoder(), { 11, 8 }, { batch = 2, tile = tile })
      oracle.near("tiles of " .. tile, decoder:decode(x, as_it_is), expected, 1e-6)
      decoder:close()
    end
    -- the overlap of tiles that differ, here all 1 and all 7, goes from the one to the other
    local steps = local_autoencoder()
    steps.decode = function(_, z) return pg.ops.upsample_nearest(z * 0 + z:narrow(4, 1, 1), 2) end
    local decoder = decoders.open(steps, { 4, 7 }, { tile = 4 })
    local row = decoder:decode(pg.arange(7):reshape({ 1, 1, 1, 7 }):expand({ 1, 3, 4, 7 }):contiguous(), as_it_is)
      :narrow(2, 1, 1):narrow(3, 1, 1):reshape({ 14 }):totable()
    assert.same({ 1, 1, 1, 1, 1, 1, 2.5, 5.5, 7, 7, 7, 7, 7, 7 }, row)
    decoder:close()
  end)

  it("takes its plan's memory, however many latents there are", function()
    local model = models.autoencoder_tiny { channels = 8 }
    model:materialise()
    local decoder, x = decoders.open(model, { 8, 8 }, { batch = 2 }), pg.randn(12, 4, 8, 8)
    local function peak(count) -- beyond the results
      memory.collect()
      core.C.pg_memory_reset_peak(core.C.PG_CPU)
      local before = memory.held()
      local made = decoder:decode(x:narrow(1, 1, count), pixels.floor)
      local most = memory.peak() - before - made:bytes()
      made:free()
      return most
    end
    local few, many = peak(2), peak(12)
    assert.is_true(many <= few + 12 * 3 * 64 * 64, ("%d, then %d bytes"):format(few, many)) -- the parts
    assert.is_true(decoder.bytes > 0)
    decoder:close()
  end)

  it("says what does not fit", function()
    fails(function() decoders.check(models.sit_s_2(), { channels = 4 }) end,
      "decode is a sit_s_2; expected an autoencoder")
    fails(function() decoders.check(models.autoencoder_kl(), { channels = 3 }) end,
      "the student makes latents of 3 channels, the autoencoder_kl decodes 4")
    fails(function() decoders.check(models.autoencoder_kl(), { channels = 4 }) end,
      "decode: the autoencoder_kl has no weights; give the option 'weights'")
    fails(function() decoders.check(models.autoencoder_kl { weights = "none.pt" }, { channels = 4 }) end,
      "decode: no file none.pt")
    fails(function() decoders.check(models.autoencoder_tiny { half = "encoder" }, { channels = 4 }) end,
      "decode: the autoencoder_tiny has no decoder")
    fails(function() decoders.check(models.autoencoder_tiny { half = "encoder", weights = "half.pt" }, { channels = 4 })
    end, "decode: half.pt has no decoder")
  end)
end)

it("values become bytes by 255(x+1)/2 or by 127.5x+128, cut off", function()
  local x = pg.tensor({ { -1, -0.999, 0, 0.998, 1, 2 } }, "float32"):reshape { 1, 1, 1, 6 }
  assert.same({ 0, 0, 127, 254, 255, 255 }, pixels.floor(x):reshape({ 6 }):totable())
  assert.same({ 0, 0, 128, 255, 255, 255 }, pixels.dit(x):reshape({ 6 }):totable())
  local two = pg.ops.concat({ x * 0, x * 0 + 1 }, 2)
  assert.same({ 1, 1, 6, 2 }, pixels.dit(two):reshape({ 1, 1, 6, 2 }).shape)
  assert.same({ 128, 255 }, pixels.dit(two):narrow(3, 1, 1):reshape({ 2 }):totable())
end)

local RECIPE = [[
local pg = require "perigee"
return pg.recipe {
  name = "latents", ema = 0.5,
  student = pg.models.sit { depth = 1, width = 32, heads = 1, patch = 2, size = 8, channels = 4, classes = 8 },
  data = pg.data.synthetic { batch = 4, classes = 8, size = 8, image = 16 },
  stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(2) } },
  sample = { count = 3, steps = 2, seed = 5 },
  DECODE
}
]]

describe("the commands", function()
  local function perigee(text) return tiny.perigee((text:gsub("@", in_folder()))) end
  local function succeeds(text)
    local status, printed = perigee(text)
    assert.equal(0, status, printed)
    return printed
  end

  setup(function()
    local model = models.autoencoder_tiny { channels = 8 }
    model:materialise { seed = 3 }
    weights.save(in_folder "tiny.safetensors", model, { names = "autoencoder_tiny" })
    npy.save(in_folder "latents.npy", pg.randn(2, 4, 4, 6))
    npy.save(in_folder "labels.npy", pg.tensor({ 0, 1, 2 }, "int64"))
    for name, decode in pairs { plain = "", decoded =
      'decode = pg.models.autoencoder_tiny { channels = 8, weights = "@/tiny.safetensors" },' } do
      files.write(in_folder(name .. ".lua"), (RECIPE:gsub("DECODE", decode):gsub("@", in_folder())))
      succeeds(("train @/%s.lua --runs @/runs --name %s --quiet"):format(name, name))
    end
  end)

  it("decode what sample wrote to what sample decodes itself, and what a recipe's preview shows", function()
    succeeds "sample @/runs/plain --out @/latents.npz"
    assert.same({ 3, 4, 8, 8 }, npz.header(in_folder "latents.npz", "arr_0").shape)
    local printed = succeeds "decode @/latents.npz --vae @/tiny.safetensors --out @/one.png --batch 2"
    assert.truthy(printed:find "2 at a time, in [%d.]+ [KM]iB and the weights", printed)
    succeeds "sample @/runs/plain --decode @/tiny.safetensors --out @/two.png"
    assert.same({ 128, 128, 3 }, png.load(in_folder "one.png").shape)
    assert.equal(files.read(in_folder "one.png"), files.read(in_folder "two.png"))
    assert.equal(files.read(in_folder "one.png"), files.read(in_folder "runs/decoded/samples/step-0000002.png"))
    succeeds "sample @/runs/decoded --out @/three.png"
    assert.equal(files.read(in_folder "one.png"), files.read(in_folder "three.png"))
    succeeds "sample @/runs/decoded --decode none --out @/none.npy"
    assert.same({ 3, 4, 8, 8 }, npy.header(in_folder "none.npy").shape)
    succeeds "sample @/runs/plain --decode @/tiny.safetensors --pixels dit --out @/dit.png"
    assert.are_not.equal(files.read(in_folder "one.png"), files.read(in_folder "dit.png"))
  end)

  it("take up a set again with the same settings alone", function()
    succeeds "sample @/runs/plain --count 2 --decode @/tiny.safetensors --out @/folder"
    local printed = succeeds "sample @/runs/plain --count 3 --decode @/tiny.safetensors --out @/folder"
    assert.truthy(printed:find "2 samples are there already", printed)
    local status, text = perigee "sample @/runs/plain --count 4 --decode @/tiny.safetensors --pixels dit --out @/folder"
    assert.equal(1, status)
    assert.truthy(text:find "other settings", text)
    succeeds "sample @/runs/plain --count 3 --out @/again.npz"
    succeeds "decode @/again.npz --vae @/tiny.safetensors --out @/pictures --tile 4"
    assert.same({ 64, 64, 3 }, png.load(in_folder "pictures/000002.png").shape)
    os.remove(in_folder "pictures/000002.png")
    assert.truthy(succeeds "decode @/again.npz --vae @/tiny.safetensors --out @/pictures --tile 4"
      :find "2 pictures are there already")
  end)

  it("refuse what they cannot decode", function()
    local function refuses(text, message)
      local status, printed = perigee(text)
      assert.equal(1, status, printed)
      assert.truthy(printed:find(message, 1, true), printed)
    end
    refuses("decode @/latents.npy --out @/x.png", "perigee decode needs --vae FILE")
    refuses("decode @/latents.npy --vae @/tiny.safetensors", "perigee decode needs --out")
    refuses("decode @/labels.npy --vae @/tiny.safetensors --out @/x.png",
      "labels.npy: int64 [3]; expected latents, float32 [N,C,h,w]")
    refuses("decode @/latents.npy --vae @/latents.npy --out @/x.png", "latents.npy")
    npy.save(in_folder "wide.npy", pg.randn(1, 5, 4, 4))
    refuses("decode @/wide.npy --vae @/tiny.safetensors --out @/x.png", "latents of 5 channels")
    refuses("sample @/runs/plain --decode @/missing.pt --out @/x.png", "missing.pt")
    files.write(in_folder "bad.lua", (RECIPE:gsub("DECODE", "decode = pg.models.autoencoder_kl {},")
      :gsub("@", in_folder())))
    refuses("train @/bad.lua --runs @/runs --name bad", "bad.lua:2: decode: the autoencoder_kl has no weights")
  end)
end)
