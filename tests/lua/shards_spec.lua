--- Data sets in few files: latents in safetensors shards, webdataset's tars, IDX files.
local by_hand = require "tests.lua.archives"
local fails = require("tests.lua.expect").fails
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local idx = require "perigee.io.idx"
local npy = require "perigee.io.npy"
local pg = require "perigee"
local png = require "perigee.io.png"
local pytorch = require "perigee.io.pytorch"
local safetensors = require "perigee.io.safetensors"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

--- Numbers of a formula.
local function numbers(shape, factor)
  local t = tensor.empty(shape, "float32")
  for k = 0, t:numel() - 1 do t:pointer()[k] = (k * factor) % 97 / 10 end
  return t
end

local function expect_close(a, b, what)
  assert.is_true(pg.ops.allclose(a, b, { relative = 1e-6, absolute = 1e-6 }), what)
end

describe("latents in safetensors shards", function()
  local first, second, flipped, statistics
  before_each(function()
    first, second, flipped = numbers({ 3, 2, 4, 4 }, 7), numbers({ 2, 2, 4, 4 }, 11), numbers({ 3, 2, 4, 4 }, 13)
    statistics = { mean = tensor.tensor({ 1, 2 }, { 1, 2, 1, 1 }, "float32"),
      std = tensor.tensor({ 0.5, 4 }, { 1, 2, 1, 1 }, "float32") }
    safetensors.save(in_folder "latents_rank00_shard000.safetensors", { latents = first, latents_flip = flipped,
      labels = tensor.tensor({ 0, 1, 2 }, "int64") })
    safetensors.save(in_folder "latents_rank01_shard000.safetensors", { latents = second, latents_flip = second,
      labels = tensor.tensor({ 2, 1 }, "int64") })
    pytorch.save(in_folder "latents_stats.pt", statistics)
  end)
  local function shards(o)
    local given = { dir = in_folder(), classes = 3, channels = 2, side = 4, batch = 5 }
    return pg.data.latent_shards(tables.merged(given, o))
  end

  it("are read where they lie, and normalised by channel", function()
    local data = shards {}
    local batch = data:loader({ shuffle = false }):next()
    expect_close(batch.latents:narrow(1, 1, 3), first)
    expect_close(batch.latents:narrow(1, 4, 2), second)
    assert.same({ 0, 1, 2, 2, 1 }, batch.labels:totable())
    expect_close(data:latents(batch, nil, "float32"), (batch.latents - statistics.mean) / statistics.std)
    expect_close(data:unscale(data:latents(batch, nil, "float32")), batch.latents)
    assert.is_nil(shards({ shift = 1, scale = 2 }).unscale) -- an autoencoder's own scale is one number too
    expect_close(shards({ shift = 1, scale = 2 }):latents(batch, nil, "float32"), (batch.latents - 1) * 2)
  end)

  it("flip to those of the mirror images", function()
    local data, seen = shards { flip = true, batch = 3 }, {}
    local loader = data:loader { shuffle = false }
    for _ = 1, 10 do
      local batch, at = loader:next(), loader:indices():totable()
      for k, n in ipairs(at) do
        local own = batch.latents:select(1, k)
        local plain = n < 3 and first:select(1, n + 1) or second:select(1, n - 2)
        local mirrored = n < 3 and flipped:select(1, n + 1) or plain
        local is_plain = pg.ops.allclose(own, plain)
        if not is_plain then expect_close(own, mirrored) end
        seen[is_plain] = true
      end
    end
    assert.same({ [true] = true, [false] = true }, seen)
  end)

  it("plan without files, and are refused where something is wrong", function()
    local absent = shards { dir = in_folder "none" }
    assert.equal(4, absent.height)
    absent:latents({ latents = first }, nil, "float32")
    fails(function() absent:open() end, "data.latent_shards: no folder")
    fails(function() shards({ channels = 3 }):open() end, "'latents' is F32 [3,2,4,4]; expected F32 [n,3,4,4]")
    fails(function() shards({ classes = 2 }):open() end, "label 2 of sample 2")
    fails(function() shards { scale = 1 } end, "shift and scale go together")
    fails(function() shards({ dtype = "bfloat16" }):open() end, "'latents' is F32; the recipe says dtype = \"bfl")
    os.remove(in_folder "latents_stats.pt")
    fails(function() shards({}):latents({ latents = first }, nil, "float32") end, "latents_stats.pt is missing")
    pytorch.save(in_folder "latents_stats.pt", { mean = statistics.mean, std = tensor.tensor({ 1, 0 }, "float32") })
    fails(function() shards({}):latents({ latents = first }, nil, "float32") end, "the deviation of channel 2 is 0")
    safetensors.save(in_folder "x.safetensors", { latents = first, labels = tensor.tensor({ 0 }, "int64") })
    fails(function() shards({}):open() end, "x.safetensors: 'labels' is [1], for 3 latents")
    safetensors.save(in_folder "x.safetensors", { latents = first, labels = tensor.tensor({ 0, 0, 0 }, "int64") })
    shards({}):open()
    fails(function() shards({ flip = true }):open() end, "x.safetensors: it has no tensor 'latents_flip'")
  end)
end)

describe("webdataset's tars", function()
  local function one_png(value)
    png.save(in_folder "one.png", pg.full({ 6, 6, 3 }, value, "uint8"))
    return files.read(in_folder "one.png")
  end
  local function put(name, list) files.write(in_folder(name), by_hand.tar(list)) end

  it("give pictures with their labels", function()
    files.make_folder(in_folder "set")
    put("set/0.tar", { { "a/1.png", one_png(10) }, { "a/1.cls", "1" }, { "a/1.json", "{}" }, { "a/2.cls", "0\n" },
      { "a/2.PNG", one_png(20) } })
    put("set/1.tar", { { "3.png", one_png(30) }, { "3.cls", "2" } })
    local data = pg.data.webdataset { files = in_folder "set", classes = 3, size = 4, batch = 3 }
    local batch = data:loader({ shuffle = false, threads = 2 }):next()
    assert.same({ 1, 0, 2 }, batch.labels:totable())
    for k = 1, 3 do assert.equal(10 * k, batch.images:totable()[k][4][4][1]) end
    assert.equal("3 pictures of 3 classes (1 file left out: a/1.json)", data:summary())
    local list = { in_folder "set/1.tar", in_folder "set/0.tar" }
    assert.equal(3, pg.data.webdataset({ files = list, classes = 3, size = 4, batch = 3 }):open().count)
  end)

  it("give latents, drawn from means and deviations or as they are", function()
    local list = {}
    for k = 1, 3 do
      npy.save(in_folder "x.npy", numbers({ 4, 2, 2 }, k))
      list[2 * k - 1] = { ("%d.latent.npy"):format(k), files.read(in_folder "x.npy") }
      list[2 * k] = { ("%d.cls"):format(k), "0" }
    end
    put("x.tar", list)
    local function data(o)
      return pg.data.webdataset(tables.merged({ files = in_folder "x.tar", record = "latent.npy", classes = 1, side = 2,
        batch = 3 }, o))
    end
    local whole = data { channels = 4, scale = 2, shift = 1 }
    local batch = whole:loader({ shuffle = false }):next()
    expect_close(whole:latents(batch, nil, "float32"):select(1, 2), (numbers({ 4, 2, 2 }, 2) - 1) * 2)
    local drawn = data { channels = 2, moments = true, scale = 1 }
    batch = drawn:loader({ shuffle = false }):next()
    assert.same({ 3, 2, 2, 2 },
      { unpack(drawn:latents(batch, tensor.tensor({ 1, 2, 3 }, "int64"), "float32").shape) })
    fails(function() data({ channels = 2 }):open() end, "they are means and deviations: moments = true")
    fails(function() data({ channels = 3 }):open() end, "its first record is float32 [4,2,2]; expected float32 [3,2,2]")
  end)

  it("are refused where something is wrong", function()
    local function refused(list, ...)
      put("x.tar", list)
      local data = pg.data.webdataset { files = in_folder "x.tar", classes = 2, size = 4, batch = 1 }
      fails(function() data:open() end, ...)
    end
    refused({ { "1.png", one_png(1) } }, "x.tar: sample '1' has no .cls")
    refused({ { "1.cls", "1" } }, "x.tar: sample '1' has no .jpg, .png or .webp")
    refused({ { "1.png", one_png(1) }, { "1.jpg", one_png(1) }, { "1.cls", "1" } }, "'1.png' and '1.jpg' are of one")
    refused({ { "1.png", one_png(1) }, { "1.cls", "one" } }, "x.tar: '1.cls' is not a whole number")
    refused({ { "1.png", one_png(1) }, { "1.cls", ("1"):rep(100) } }, "'1.cls' has 100 bytes; at most 32 are read")
    refused({ { "1.png", one_png(1) }, { "1.cls", "2" } }, "label 2 of sample 0")
    refused({ { "readme", "" } }, "no samples in")
    fails(function() pg.data.webdataset { files = "x", classes = 2, batch = 1 } end, "option 'size' is missing")
    fails(function() pg.data.webdataset({ files = in_folder "none", classes = 1, size = 1, batch = 1 }):open() end,
      "no folder or file")
  end)
end)

describe("an IDX file", function()
  local function big(value) return by_hand.little(value, 4):reverse() end
  local function array(shape, bytes)
    local text = "\0\0\8" .. string.char(#shape)
    for _, n in ipairs(shape) do text = text .. big(n) end
    return text .. bytes
  end
  --- A gzip file, by one stored block.
  local function gzip(text, crc, flags, extra)
    return "\31\139\8" .. string.char(flags or 0) .. ("\0"):rep(6) .. (extra or "") .. "\1" .. by_hand.little(#text, 2)
      .. by_hand.little(65535 - #text, 2) .. text .. by_hand.little(crc or core.C.pg_crc32(0, text, #text), 4)
      .. by_hand.little(#text, 4)
  end
  local function put(text)
    files.write(in_folder "x", text)
    return in_folder "x"
  end

  it("is read, packed or not", function()
    local text = array({ 2, 3 }, "\1\2\3\4\5\6")
    for _, whole in ipairs { text, gzip(text), gzip(text, nil, 8, "name\0"), gzip(text, nil, 4, "\2\0ab"),
      gzip(text, nil, 2, "xx") } do
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, idx.load(put(whole)):totable())
    end
  end)

  it("that lies is refused, with its name", function()
    local text = array({ 2, 3 }, "\1\2\3\4\5\6")
    local function refused(whole, message) fails(function() idx.load(put(whole)) end, in_folder "x", message) end
    refused(text .. "x", "its shape [2,3] needs 6 bytes, it has 7")
    refused(text:sub(1, -2), "its shape [2,3] needs 6 bytes, it has 5")
    refused(text:sub(1, 7), "2 dimensions")
    refused(array({ 2 ^ 31, 2 ^ 31 }, "x"), "needs")
    refused("\0\0\13\1" .. big(1) .. "\0\0\0\0", "its elements are of kind 0x0d")
    refused("hello", "it does not begin with two zeros")
    refused("", "it is empty")
    refused(gzip(text, 1), "its bytes have another CRC-32")
    for length = 2, #gzip(text) - 1 do
      fails(function() idx.load(put(gzip(text):sub(1, length))) end, in_folder "x")
    end
  end)

  it("makes Fashion-MNIST's data set, or says which package has it", function()
    local pixels = ("\7"):rep(28 * 28) .. ("\9"):rep(28 * 28)
    files.write(in_folder "t10k-images-idx3-ubyte", array({ 2, 28, 28 }, pixels))
    files.write(in_folder "t10k-labels-idx1-ubyte.gz", gzip(array({ 2 }, "\3\9")))
    local function fashion(o) return pg.data.fashion_mnist(tables.merged({ dir = in_folder(), batch = 2 }, o)) end
    local data = fashion { split = "test" }
    local batch = data:loader({ shuffle = false }):next()
    assert.same({ 2, 28, 28, 1 }, { unpack(batch.images.shape) })
    assert.same({ 3, 9 }, batch.labels:totable())
    assert.equal("ankle boot", data.class_names[10])
    fails(function() fashion({}):open() end, "has no train-images-idx3-ubyte, packed as .gz or not")
    if not files.exists "/usr/share/datasets/fashion-mnist" then
      fails(function() pg.data.fashion_mnist({ batch = 1 }):open() end, "sudo apt-get install dataset-fashion-mnist")
    else assert.equal(60000, pg.data.fashion_mnist({ batch = 1 }):open().count) end
    files.write(in_folder "t10k-labels-idx1-ubyte.gz", gzip(array({ 3 }, "\3\9\0")))
    fails(function() fashion({ split = "test" }):open() end, "[3] labels for 2 pictures")
  end)
end)
