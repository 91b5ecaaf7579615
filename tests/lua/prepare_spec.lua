--- perigee prepare: what it makes, what it makes of a kill and of a full disk, what --check finds.
local by_hand = require "tests.lua.archives"
local fails = require("tests.lua.expect").fails
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local latents = require "perigee.io.latents"
local npy = require "perigee.io.npy"
local pg = require "perigee"
local picture = require "perigee.io.picture"
local png = require "perigee.io.png"
local prepare = require "perigee.prepare"
local check = require "perigee.prepare.check"
local progress = require "perigee.record.progress"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"
local tiny = require "tests.lua.tiny"
local weights = require "perigee.io.weights"
local work = require "perigee.prepare.work"

local C = core.C
local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)
local fixtures = core.home .. "/tests/oracle/fixtures/pictures/"
local quiet = progress.new { quiet = true, clock = C.pg_clock_seconds }

-- A wait for the disk takes seconds where others write to it; the commands that are run here wait.
local sync = files.sync
setup(function() files.sync = function() end end)
teardown(function() files.sync = sync end)

--- `count` pictures of two classes, 10 x 8, in FOLDER/source.
local function make_source(count)
  for _, class in ipairs { "dog", "cat" } do files.make_folder(in_folder("source/" .. class)) end
  for k = 1, count do
    local image = tensor.empty({ 8, 10, 3 }, "uint8")
    for at = 0, 239 do image:pointer()[at] = (at * k * 7 + k) % 256 end
    png.save(in_folder(("source/%s/%04d.png"):format(k % 2 == 0 and "dog" or "cat", k)), image)
  end
end

local function run(o)
  prepare.run(tables.merged({ source = in_folder "source", dest = in_folder "out", size = 8, workers = 2, batch = 2,
    device = "cpu", progress = quiet }, o))
end

--- The files of a folder by their paths in it, but for the lock.
local function tree(folder, inside, found)
  inside, found = inside or "", found or {}
  for _, name in ipairs(files.list(folder .. "/" .. inside)) do
    local path = inside == "" and name or inside .. "/" .. name
    if files.kind(folder .. "/" .. path) == "directory" then tree(folder, path, found)
    elseif name ~= "prepare.lock" then found[path] = files.read(folder .. "/" .. path) end
  end
  return found
end

--- An error unless two folders have the same files, that names the first that differ.
local function expect_same(expected, found)
  for _, name in ipairs(tables.sorted_keys(tables.merged(expected, found))) do
    assert.is_true(expected[name] == found[name], name .. (found[name] and " is another file" or " is missing"))
  end
end

local function problems() return check.run(in_folder "out", quiet) end

--- A small autoencoder's weights, eight pixels a latent's side.
local function make_vae()
  local model = pg.models.autoencoder_kl { channels = 32, mult = { 1, 1, 1, 1 }, blocks = 1 }
  model:materialise()
  weights.save(in_folder "vae.safetensors", model, { names = "autoencoder_kl" })
  return model
end

describe("perigee prepare", function()
  it("crops pictures, numbers them in the order of their names, keeps their labels", function()
    make_source(5)
    run {}
    local listed = json.read(in_folder "out/images/dataset.json").labels
    for k, name in ipairs { "cat/0001", "cat/0003", "cat/0005", "dog/0002", "dog/0004" } do
      local own = ("00000/img%08d.png"):format(k - 1)
      local expected = picture.centre_crop(picture.load(in_folder("source/" .. name .. ".png")), 8)
      assert.same(expected:totable(), picture.load(in_folder("out/images/" .. own)):totable())
      assert.same({ own, k > 3 and 1 or 0 }, { listed[k][1], listed[k][2] })
    end
    assert.same({}, problems())
    local before = tree(in_folder "out")
    run {} -- all is there
    expect_same(before, tree(in_folder "out"))
  end)

  it("reads archives, and the labels of their dataset.json", function()
    run { source = fixtures .. "edm2.zip", dest = in_folder "a" }
    run { source = fixtures .. "deflated.zip", dest = in_folder "b" }
    local a, b = tree(in_folder "a"), tree(in_folder "b")
    for k = 0, 8 do
      local name = ("images/00000/img%08d.png"):format(k)
      assert.equal(a[name], b[name])
    end
    assert.matches('%[%["00000/img00000000.png",1%]', a["images/dataset.json"])
    assert.matches('%[%["00000/img00000000.png",0%]', b["images/dataset.json"])
  end)

  it("writes mean and deviation of latents, those of mirror images too, that a data set reads", function()
    make_source(5)
    local model = make_vae()
    run { size = 16, vae = in_folder "vae.safetensors", flips = true }
    assert.same({}, problems())
    local image = picture.load(in_folder "out/images/00000/img00000003.png")
    for folder, pixels in pairs { ["vae-sd"] = image, ["vae-sd-mirrored"] = pg.ops.flip(image, 2) } do
      local x = (pixels:to "float32" / 127.5 - 1):permute { 3, 1, 2 }
      local mean, deviation = model:encode(x:contiguous():reshape { 1, 3, 16, 16 })
      local found = npy.load(in_folder("out/" .. folder .. "/00000/img-mean-std-00000003.npy"))
      assert.same({ 8, 2, 2 }, { unpack(found.shape) })
      assert.is_true(pg.ops.allclose(found, pg.ops.concat({ mean, deviation }, 2):reshape { 8, 2, 2 }))
    end
    local set = pg.data.imagenet_latents { dir = in_folder "out", size = 16, classes = 2, batch = 5, flip = true }
    local seen = {}
    local loader = set:loader { seed = 3 }
    for _ = 1, 4 do
      local batch, numbers = loader:next(), loader:indices():totable()
      for k, number in ipairs(numbers) do
        local name = ("img-mean-std-%08d.npy"):format(number)
        local own = batch.latents:select(1, k)
        local mirrored = pg.ops.allclose(own, npy.load(in_folder("out/vae-sd-mirrored/00000/" .. name)))
        assert.is_true(mirrored or pg.ops.allclose(own, npy.load(in_folder("out/vae-sd/00000/" .. name))))
        local raw = picture.load(in_folder(("out/images/00000/img%08d.png"):format(number)))
        if mirrored then raw = pg.ops.flip(raw, 2) end
        assert.same(raw:totable(), batch.images:select(1, k):totable())
        seen[mirrored] = true
      end
    end
    assert.same({ [true] = true, [false] = true }, seen)
    loader:close()
    fails(function() run { size = 16, vae = in_folder "vae.safetensors" } end, "another --flips (true, now false)")
    os.remove(in_folder "out/vae-sd/00000/img-mean-std-00000002.npy")
    fails(function() pg.data.imagenet_latents({ dir = in_folder "out", size = 16, classes = 2, batch = 5,
      flip = true }):open() end, "vae-sd: it has no 00000/img-mean-std-00000002.npy, but")
  end)

  it("goes on after a full disk to the very same files, and lists no file that is not there", function()
    make_source(24)
    make_vae()
    run { dest = in_folder "whole", vae = in_folder "vae.safetensors", size = 16 }
    local whole = tree(in_folder "whole")
    local all = 0
    for _, bytes in pairs(whole) do all = all + #bytes end
    local seconds, samples, failed = work.seconds, work.samples, 0
    work.samples = 8
    for part = 1, 6 do
      files.remove_tree(in_folder "out")
      C.pg_writer_fail_after(math.floor(all * part / 6.5))
      local fine, message = pcall(run, { vae = in_folder "vae.safetensors", size = 16 })
      C.pg_writer_fail_after(-1)
      if not fine then
        failed = failed + 1
        assert.matches("cannot be written: No space left", message)
      end
      for _, problem in ipairs(problems()) do
        assert.is_truthy(problem:find "it lists" or problem:find "not in the manifest"
          or problem:find "json: it is missing", problem)
      end
      run { vae = in_folder "vae.safetensors", size = 16 }
      expect_same(whole, tree(in_folder "out"))
    end
    work.seconds, work.samples = seconds, samples
    assert.is_true(failed >= 5, failed .. " of 6 failed")
  end)

  it("goes on after kill -9 to the very same files", function()
    make_source(200)
    run { dest = in_folder "whole" }
    local whole, killed = tree(in_folder "whole"), 0
    for _, wanted in ipairs { 10, 60, 120 } do -- pictures that are done when it is killed
      local pipe = io.popen(("{ %s >%s 2>&1 & echo $!; }"):format(tiny.command(
        ("prepare %s %s --size 8 --workers 2"):format(in_folder "source", in_folder "out")), in_folder "log"))
      local pid = pipe:read "*l"
      local pictures, ends = in_folder "out/images/00000", C.pg_clock_seconds() + 30
      repeat
        local done = files.exists(pictures) and #files.list(pictures) or 0
      until done > wanted or C.pg_clock_seconds() > ends
      os.execute("kill -9 " .. pid .. " 2>/dev/null")
      pipe:close()
      local lock
      repeat lock = not files.exists(in_folder "out") or files.lock(in_folder "out/prepare.lock") until lock
      if lock ~= true then lock:free() end
      if not files.exists(in_folder "out/images/dataset.json") then killed = killed + 1 end
    end
    assert.is_true(killed > 0)
    if files.exists(in_folder "out/images.manifest") and not files.exists(in_folder "out/images/dataset.json") then
      files.make_folder(in_folder "out/images/00000")
      files.write(in_folder "out/images/00000/img00000003.png.tmp-99-1", "half")
    end
    run {}
    expect_same(whole, tree(in_folder "out"))
  end)

  it("goes on from the last whole line of a manifest, wherever it was cut", function()
    make_source(3)
    run {}
    local whole = tree(in_folder "out")
    local manifest = whole["images.manifest"]
    for length = 0, #manifest - 1, 17 do
      files.write(in_folder "out/images.manifest", manifest:sub(1, length))
      local fine, message = pcall(run, {})
      if manifest:sub(1, length):find "\n" then
        assert.is_true(fine, message)
        expect_same(whole, tree(in_folder "out"))
      else assert.matches("which would say how it was made", message) end
    end
    files.write(in_folder "out/images.manifest", (manifest:gsub("00000001\t%x", "00000001\tz")))
    fails(function() run {} end, "images.manifest: line 3 is damaged")
  end)

  it("refuses another beginning", function()
    make_source(3)
    run {}
    fails(function() run { size = 4 } end, "was begun with another size (8, now 4)")
    png.save(in_folder "source/cat/9.png", pg.zeros({ 8, 8, 3 }, "uint8"))
    fails(function() run {} end, "was begun with another count (3, now 4)")
    files.rename(in_folder "source/cat/9.png", in_folder "source/cat/0003.png")
    files.rename(in_folder "source/cat/0003.png", in_folder "source/cat/0004.png")
    os.remove(in_folder "out/images.manifest")
    fails(function() run {} end, "out/images is there, but not", "which would say how it was made")
    fails(function() run { source = in_folder "none" } end, "none: there is no such folder or archive")
    files.make_folder(in_folder "empty")
    fails(function() run { source = in_folder "empty" } end, "empty: no pictures (.png, .jpg, .webp) in it")
    fails(function() run { dest = in_folder "b", size = 9, vae = make_vae() and in_folder "vae.safetensors" } end,
      "--size 9: ", "makes latents of pictures whose sides are multiples of 8")
    fails(function() run { dest = in_folder "b", vae = in_folder "none.pt" } end, "none.pt: weights file not found")
    assert.is_false(files.exists(in_folder "b")) -- no picture was prepared for nothing
    local held = files.lock(in_folder "out/prepare.lock")
    fails(function() run {} end, "prepares it now")
    held:free()
  end)

  it("names what can't be read, or leaves it out if asked to", function()
    make_source(20)
    files.write(in_folder "source/cat/0005.png", "nothing")
    local jpeg = files.read(fixtures .. "plain.jpg")
    files.write(in_folder "source/dog/0006.png", jpeg:sub(1, 1000))
    fails(function() run {} end, "0005.png: not a picture that can be read", "(--skip leaves such pictures out)")
    make_vae()
    run { skip = true, vae = in_folder "vae.safetensors", batch = 4 }
    assert.same({}, problems())
    local there = tree(in_folder "out")
    assert.is_nil(there["images/00000/img00000002.png"])
    assert.is_nil(there["vae-sd/00000/img-mean-std-00000012.npy"])
    assert.matches("00000002\t%-\t%-\t0\tcat/0005.png\t[^\n]*0005.png: not a picture", there["images.manifest"])
    assert.equal(18, #json.read(in_folder "out/vae-sd/dataset.json").labels)
    local set = pg.data.imagenet_latents { dir = in_folder "out", size = 8, classes = 2, batch = 5 }
    assert.equal("18 pictures of 2 classes", set:summary())
  end)

  it("writes nothing outside of its folder, whatever an archive's names are", function()
    local a = files.read(fixtures .. "grey-jpg.png")
    files.write(in_folder "x.zip", by_hand.zip { { "../evil.png", a, by_hand.summed(a) } })
    fails(function() run { source = in_folder "x.zip" } end, "x.zip: ", "an entry is named '../evil.png'")
    assert.same({ ["x.zip"] = files.read(in_folder "x.zip") }, tree(in_folder()))
  end)

  it("is checked: what is changed, missing or added is found", function()
    make_source(3)
    run {}
    local image = in_folder "out/images/00000/img00000001.png"
    local bytes = files.read(image)
    files.write(image, bytes:sub(1, 100) .. "x" .. bytes:sub(102))
    assert.matches("img00000001.png: its bytes have the CRC%-32 %x+, its manifest says %x+", problems()[1])
    files.write(image, bytes .. "x")
    assert.matches("img00000001.png: it has %d+ bytes, its manifest says %d+", problems()[1])
    os.remove(image)
    assert.matches("img00000001.png: it is missing", problems()[1])
    files.write(image, bytes)
    files.write(in_folder "out/images/00000/img00000007.png", bytes)
    assert.matches("img00000007.png: not in the manifest", problems()[1])
    os.remove(in_folder "out/images/00000/img00000007.png")
    local listed = in_folder "out/images/dataset.json"
    files.write(listed, (files.read(listed):gsub(",1%]", ",0]")))
    assert.matches("dataset.json: 00000/img00000002.png has the label 0, its manifest says 1", problems()[1])
    local status, text = tiny.perigee("prepare --check " .. in_folder "out")
    assert.equal(1, status)
    assert.matches("1 problem", text)
    run {}
    assert.equal(0, (tiny.perigee("prepare --check " .. in_folder "out")))
  end)
end)

describe("perigee prepare coco", function()
  local coco = require "perigee.prepare.coco"
  local function annotations(change)
    local object = {
      images = { { id = 30, file_name = "b.png" }, { id = 4, file_name = "a.jpg" } },
      annotations = { { image_id = 30, caption = "b one" }, { image_id = 4, caption = "a one" },
        { image_id = 30, caption = "b two" } },
    }
    if change then change(object) end
    for _, key in ipairs { "images", "annotations" } do object[key] = object[key] and json.array(object[key]) end
    json.write(in_folder "captions.json", object)
    return in_folder "captions.json"
  end
  local function prepare_coco(o)
    coco.run(tables.merged({ source = in_folder "source", dest = in_folder "out", annotations = annotations(),
      size = 16, split = "train", workers = 1, batch = 2, device = "cpu", progress = quiet }, o))
  end
  before_each(function()
    files.make_folder(in_folder "source")
    files.write(in_folder "source/a.jpg", files.read(fixtures .. "plain.jpg"))
    files.write(in_folder "source/b.png", files.read(fixtures .. "cmyk-jpg.png"))
  end)

  it("numbers pictures by their id, keeps captions, takes features that exist", function()
    make_vae()
    files.make_folder(in_folder "text/train")
    npy.save(in_folder "text/train/0_0.npy", pg.full({ 77, 8 }, 3))
    npy.save(in_folder "text/train/1_1.npy", pg.full({ 77, 8 }, 4))
    npy.save(in_folder "text/empty_context.npy", pg.full({ 77, 8 }, 5))
    prepare_coco { vae = in_folder "vae.safetensors", text = in_folder "text" }
    local expected = picture.centre_crop(picture.load(fixtures .. "plain.jpg"), 16)
    assert.same(expected:totable(), picture.load(in_folder "out/train/0.png"):totable())
    assert.same({ { "a one" }, { "b one", "b two" } }, json.read(in_folder "out/train/captions.json"))
    assert.equal(4, npy.load(in_folder "out/train/1_1.npy"):totable()[1][1])
    assert.equal(5, npy.load(in_folder "out/empty_context.npy"):totable()[1][1])
    assert.is_false(files.exists(in_folder "out/train/1_0.npy"))
    prepare.run { source = in_folder "source", dest = in_folder "repa", size = 16, vae = in_folder "vae.safetensors",
      workers = 1, batch = 2, device = "cpu", progress = quiet }
    local repa = npy.load(in_folder "repa/vae-sd/00000/img-mean-std-00000001.npy")
    local uvit = npy.load(in_folder "out/train/1.npy")
    assert.is_true(pg.ops.allclose(repa:narrow(1, 1, 4), uvit:narrow(1, 1, 4)))
    assert.is_true(pg.ops.allclose(repa:narrow(1, 5, 4), pg.ops.exp(uvit:narrow(1, 5, 4) * 0.5),
      { relative = 1e-5, absolute = 1e-6 }))
    local data = pg.data.coco { dir = in_folder "out", size = 16, text_width = 8, batch = 2 }
    local batch = data:loader({ shuffle = false }):next()
    assert.same({ 3, 4 }, { batch.text:totable()[1][1][1], batch.text:totable()[2][1][1] })
    assert.same(expected:totable(), batch.images:select(1, 1):totable())
    assert.is_true(pg.ops.allclose(batch.latents:select(1, 2), uvit))
    local before = tree(in_folder "out")
    prepare_coco { vae = in_folder "vae.safetensors", text = in_folder "text" }
    expect_same(before, tree(in_folder "out"))
  end)

  it("says that features are missing", function()
    local command = ("prepare coco %s %s --annotations %s --size 16"):format(in_folder "source", in_folder "out",
      annotations())
    local status, text = tiny.perigee(command)
    assert.equal(0, status)
    assert.matches("features of 0 captions; 3 are missing%. Perigee does not compute them", text)
    npy.save(in_folder "x.npy", pg.zeros { 2, 3, 4 })
    files.make_folder(in_folder "text/train")
    files.rename(in_folder "x.npy", in_folder "text/train/0_0.npy")
    fails(function() prepare_coco { text = in_folder "text" } end, "0_0.npy: float32 [2,3,4]; expected float32 [")
    fails(function() prepare_coco { text = in_folder "none" } end, "no folder " .. in_folder "none/train")
  end)

  it("refuses annotations that are not COCO's", function()
    local function refused(change, text)
      local path = annotations(change)
      fails(function() coco.annotations(path) end, "captions.json: not COCO's annotations of captions: " .. text)
    end
    refused(function(o) o.images = nil end, "it has no list 'images'")
    refused(function(o) o.images[1].file_name = "../x.png" end, "picture 1 of its list has no number 'id', or no")
    refused(function(o) o.images[2].id = 30 end, "two pictures have the id 30")
    refused(function(o) o.annotations[3].image_id = 5 end, "caption 3 is of a picture that it does not list")
    refused(function(o) o.annotations[1].caption = 7 end, "annotation 1 has no 'caption'")
    refused(function(o) o.images, o.annotations = {}, {} end, "it lists no pictures")
  end)
end)

describe("latents of unknown origin", function()
  --- Files of latents about means of channels, in a folder as other tools leave it.
  local function make(count, means_of)
    files.make_folder(in_folder "out/vae-sd/00000")
    local labels = json.array()
    for k = 0, count - 1 do
      local t = pg.zeros({ 8, 2, 2 }, "float32")
      for c, mean in ipairs(means_of(k)) do
        for at = 0, 3 do t:pointer()[(c - 1) * 4 + at] = mean + (at + k) % 3 - 1 end
      end
      local name = ("00000/img-mean-std-%08d.npy"):format(k)
      npy.save(in_folder("out/vae-sd/" .. name), t)
      labels[k + 1] = json.array { name, 0 }
    end
    json.write(in_folder "out/vae-sd/dataset.json", { labels = labels })
  end
  local function edm2() return latents.edm2.mean end
  local function own() return { 0.5, -0.2, 0.1, 0.3 } end
  local function set(o)
    return pg.data.imagenet_latents(tables.merged({ dir = in_folder "out", size = 16, classes = 1, batch = 2,
      images = false }, o))
  end

  it("are told by their means: edm2's are refused, or read as such", function()
    make(20, own)
    set({}):open()
    assert.same({}, problems())
    make(20, edm2)
    fails(function() set({}):open() end, "are those of edm2's latents", "shift = { 5.81, 3.25, 0.12, -2.15 }",
      "scale = { 0.1199, 0.1082, 0.1348, 0.1524 }")
    local data = set { shift = { 5.81, 3.25, 0.12, -2.15 }, scale = { 0.5, 1, 1, 1 } }
    local batch = data:loader({ shuffle = false, threads = 0 }):next()
    local z = data:latents(batch, tensor.tensor({ 1, 2, 3 }, "int64"), "float32")
    assert.is_true(math.abs(z:totable()[1][1][1][2]) < 1e-5) -- its deviation is 0
    assert.is_true(math.abs(z:totable()[1][1][1][1] + 0.5) < 1e-5)
    assert.is_true(pg.ops.allclose(data:unscale(z), batch.latents:narrow(2, 1, 4), { relative = 1e-5 }))
  end)

  it("are refused where the two are mixed", function()
    make(40, function(k) return k < 25 and own() or edm2() end)
    fails(function() set({}):open() end, "seem to be edm2's latents", "they must not be mixed")
    assert.matches("they must not be mixed", problems()[1])
  end)

  it("are not added to", function()
    make(20, edm2)
    make_source(2)
    make_vae()
    fails(function() run { vae = in_folder "vae.safetensors" } end, "out/vae-sd is there, but not", "edm2's latents")
  end)

  it("must be of the recipe's channels, size, scale and shift", function()
    make_source(4)
    make_vae()
    run { vae = in_folder "vae.safetensors", size = 16 }
    local small = { size = 16, classes = 2 }
    set(small):open()
    fails(function() set(tables.merged(small, { side = 3 })):open() end, "float32 [8,2,2]; expected float32 [8,3,3]")
    fails(function() set(tables.merged(small, { scale = 1 })):open() end, "scale = 1, but the autoencoder that made",
      "has the scale 0.18215")
    fails(function() set(tables.merged(small, { flip = true })):open() end, "there is no folder", "--flips makes them")
    fails(function() set(tables.merged(small, { scale = { 1, 2 } })) end, "scale has 2 numbers for 4 channels")
  end)
end)
