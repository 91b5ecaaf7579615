--- Data sets and their loader: every layout on the disk, what a batch holds, restarts, messages.
local lfs = require "lfs"
local fails = require("tests.lua.expect").fails
local pg = require "perigee"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local npy = require "perigee.io.npy"
local philox = require "tests.lua.philox"
local png = require "perigee.io.png"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local CLASSES = { "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" }

--- uint8 [n,side,side,3] whose sample k is full of values that depend on k, and differ from pixel to pixel.
local function pictures(n, side)
  local t = tensor.empty({ n, side, side, 3 }, "uint8")
  local pixels = side * side * 3
  for k = 0, n * pixels - 1 do t:pointer()[k] = (math.floor(k / pixels) * 13 + k % pixels * 7 + 1) % 256 end
  return t
end

local function label_list(n, classes)
  local list = {}
  for k = 1, n do list[k] = (k - 1) % classes end
  return list
end

--- Checks the batches of a loader against pictures and labels, by the samples' numbers.
local function check_batches(set, images, labels, steps)
  local loader = set:loader { seed = 5 }
  local all = images:totable()
  for step = 0, steps - 1 do
    local batch = loader:next()
    assert.equal(step, loader.step)
    local pixels, numbers, got = batch.images:totable(), loader:indices():totable(), batch.labels:totable()
    for k, number in ipairs(numbers) do
      assert.equal(labels[number + 1], got[k])
      assert.same(all[number + 1], pixels[k])
    end
  end
  loader:close()
  fails(function() loader:next() end, "loader: it was closed")
end

describe("CIFAR-10", function()
  local function cifar(o)
    o.dir, o.batch, o.flip = o.dir or in_folder(), 4, o.flip or false
    return pg.data.cifar10(o)
  end

  it("knows its shapes without files and says what is missing", function()
    local set = cifar { dir = in_folder "none" }
    assert.same({ 10, 3, 32, 32, 4 }, { set.classes, set.channels, set.height, set.width, set.batch })
    assert.same({ { name = "images", dtype = "uint8", shape = { 32, 32, 3 } },
      { name = "labels", dtype = "int64", shape = {} } }, set:fields())
    fails(function() set:open() end, "data.cifar10: no folder " .. in_folder "none")
    fails(function() cifar({}):open() end, "has no split 'train'", "data_batch_1.bin")
    fails(function() cifar { split = "valid" } end, "unknown split 'valid'; expected train or test")
    fails(function() pg.data.cifar10 { dir = "x", batch = 4, fliip = true } end, 'did you mean "flip"?')
    fails(function() pg.data.cifar10 { dir = "x" } end, "option 'batch' is missing")
  end)

  it("reads .npy files", function()
    local images, labels = pictures(11, 32), label_list(11, 10)
    npy.save(in_folder "cifar10-train-11.npy", images)
    npy.save(in_folder "cifar10-train-11-labels.npy", tensor.tensor(labels, "uint8"))
    local set = cifar {}
    assert.equal(11, set:open().count)
    check_batches(set, images, labels, 5)
    fails(function() cifar({ split = "test" }):open() end, "has no split 'test'")
    npy.save(in_folder "cifar10-train-11-labels.npy", tensor.tensor({ 10 }, "uint8"))
    fails(function() cifar({}):open() end, "cifar10-train-11-labels.npy: label 10 of sample 0", "0 to 9")
    npy.save(in_folder "cifar10-train-11-labels.npy", tensor.tensor({ 1 }, "uint8"))
    fails(function() cifar({}):open() end, "its field 'labels' is int64 [1]; expected int64 [11]")
    os.remove(in_folder "cifar10-train-11-labels.npy")
    fails(function() cifar({}):open() end, "cifar10-train-11-labels.npy: cannot be opened")
    npy.save(in_folder "cifar10-train-12.npy", images)
    fails(function() cifar({}):open() end, "several files for the split 'train'")
  end)

  it("reads the binary batches", function()
    local images, labels = pictures(10, 32), label_list(10, 10)
    local pointer, records = images:pointer(), {}
    for n = 0, 9 do
      local planes = {}
      for c = 0, 2 do
        for k = 0, 1023 do planes[#planes + 1] = string.char(pointer[(n * 1024 + k) * 3 + c]) end
      end
      records[n + 1] = string.char(labels[n + 1]) .. table.concat(planes)
    end
    files.make_folder(in_folder "cifar-10-batches-bin")
    for k = 1, 5 do -- two records each
      files.write(in_folder(("cifar-10-batches-bin/data_batch_%d.bin"):format(k)), records[2 * k - 1] .. records[2 * k])
    end
    files.write(in_folder "cifar-10-batches-bin/test_batch.bin", records[3])
    check_batches(cifar {}, images, labels, 5)
    check_batches(cifar { dir = in_folder "cifar-10-batches-bin" }, images, labels, 3)
    assert.equal(1, cifar({ split = "test" }):open().count)
    files.write(in_folder "cifar-10-batches-bin/data_batch_4.bin", records[1]:sub(2))
    fails(function() cifar({}):open() end, "data_batch_4.bin: 3072 bytes, which are not records of 3073")
  end)

  it("reads folders of PNG files", function()
    local images, labels = pictures(20, 32), {}
    for k = 0, 19 do
      labels[k + 1] = math.floor(k / 2)
      files.make_folder(in_folder("train/" .. CLASSES[labels[k + 1] + 1]))
      png.save(in_folder(("train/%s/%02d.png"):format(CLASSES[labels[k + 1] + 1], k)),
        images:narrow(1, k + 1, 1):reshape { 32, 32, 3 })
    end
    check_batches(cifar {}, images, labels, 6)
    check_batches(cifar { dir = in_folder "train" }, images, labels, 6)
    files.remove_tree(in_folder "train/cat")
    fails(function() cifar({}):open() end, "the folders with pictures in", "expected airplane", "cat")
  end)
end)

describe("a folder of pictures", function()
  it("scales them and checks the classes", function()
    for _, class in ipairs { "b", "a" } do
      files.make_folder(in_folder(class))
      for k = 1, 3 do
        png.save(in_folder(class .. "/" .. k .. ".png"), pg.full({ 6 + k, 9, 3 }, class == "a" and 10 or 200, "uint8"))
      end
    end
    local function folder(o)
      o.dir, o.size, o.batch = in_folder(), 4, 3
      return pg.data.folder(o)
    end
    local set = folder { classes = 2 }
    local loader = set:loader()
    assert.same({ "a", "b" }, set.class_names)
    for _ = 1, 4 do
      local batch = loader:next()
      assert.same({ 3, 4, 4, 3 }, batch.images.shape)
      for k, label in ipairs(batch.labels:totable()) do
        assert.equal(label == 0 and 10 or 200, batch.images:totable()[k][2][2][2])
      end
    end
    fails(function() folder({ classes = 3 }):open() end, "has pictures of 2 classes (a, b); the recipe says 3")
    fails(function() folder({ classes = 2, resize = false }):loader():next() end, ".png: the picture is 9x")
    fails(function() pg.data.folder({ dir = in_folder "none", size = 4, batch = 3, classes = 2 }):open() end,
      "data.folder: no folder")
    local before = set:digest()
    files.write(in_folder "a/1.png", "no picture")
    assert.not_equal(before, folder({ classes = 2 }):digest())
    loader = set:loader { threads = 2 }
    fails(function() for _ = 1, 2 do loader:next() end end, "a/1.png: not a picture that can be read")
  end)
end)

describe("labels and fields", function()
  local function set_of(source, o)
    return pg.data.dataset(tables.merged({
      name = "mine", classes = 3, channels = 3, height = 4, width = 4, batch = 2,
      find = function() return 4, tables.merged({ images = { tensor = pictures(4, 4) } }, source) end,
    }, o))
  end
  local function labels_of(values, dtype) return { labels = { tensor = tensor.tensor(values, dtype or "int64") } } end

  it("of a data set of one's own are held against its classes", function()
    for label in pairs { [3] = true, [-1] = true } do
      fails(function() set_of(labels_of { 1, 2, label, 0 }):open() end,
        ("data set 'mine': label %d of sample 2; with 3 classes they are 0 to 2"):format(label))
    end
    set_of(labels_of { 1, 2, 2, 0 }):open()
  end)

  it("say by name what they are and what is expected", function()
    local labels = labels_of { 1, 2, 2, 0 }
    for _, case in ipairs {
      { labels_of({ 1, 2, 2, 0 }, "int32"), "its field 'labels' is int32 [4]; expected int64 [4]" },
      { labels_of({ 1, 2, 2, 0 }, "uint8"), "its field 'labels' is uint8 [4]; expected int64 [4]" },
      { labels_of { { 1 }, { 2 }, { 2 }, { 0 } }, "its field 'labels' is int64 [4,1]; expected int64 [4]" },
      { tables.merged(labels, { images = { tensor = pictures(4, 4):permute { 1, 4, 2, 3 } } }),
        "its field 'images' is uint8 [4,3,4,4]; expected uint8 [4,4,4,3]" },
      { tables.merged(labels, { images = { tensor = pictures(3, 4) } }),
        "its field 'images' is uint8 [3,4,4,3]; expected uint8 [4,4,4,3]" },
      { {}, "no source for its field 'labels'" },
    } do
      fails(function() set_of(case[1]):open() end, "data set 'mine': ", case[2])
    end
  end)

  it("are held against the classes where they come from a file", function()
    npy.save(in_folder "y.npy", tensor.tensor({ 1, 2, 3, 0 }, "int64"))
    local source = { labels = { path = in_folder "y.npy", offset = npy.header(in_folder "y.npy").offset } }
    local loader = set_of(source):loader { shuffle = false }
    assert.same({ 1, 2 }, loader:next().labels:totable())
    fails(function() loader:next() end,
      ("data set 'mine': label 3 of sample 2 in %s; with 3 classes they are 0 to 2"):format(in_folder "y.npy"))
  end)
end)

describe("what a folder of pictures leaves out", function()
  local function folder(o)
    return pg.data.folder(tables.merged({ dir = in_folder(), size = 4, batch = 3, classes = 2 }, o))
  end
  before_each(function()
    for _, class in ipairs { "b", "a" } do
      files.make_folder(in_folder(class))
      png.save(in_folder(class .. "/1.png"), pg.full({ 4, 4, 3 }, 10, "uint8"))
    end
  end)

  it("is counted and named", function()
    assert.equal("2 pictures of 2 classes", folder({}):summary())
    files.make_folder(in_folder "a/more/2.png")
    files.write(in_folder "b/2.gif", "")
    assert.equal("2 pictures of 2 classes (2 files left out: a/more/, b/2.gif)", folder({}):summary())
    files.make_folder(in_folder "c")
    files.write(in_folder "list.txt", "")
    assert.equal("2 pictures of 2 classes (4 files left out: a/more/, b/2.gif, c/, ...)", folder({}):summary())
    os.remove(in_folder "a/1.png")
    os.remove(in_folder "b/1.png")
    fails(function() folder({}):open() end, "no pictures (.png, .jpg, .webp) in its folders",
      "there is a/more/, b/2.gif, c/")
  end)

  it("does not count in what the data are, but all else does", function()
    local function digest() return folder({}):identity().digest end
    local first = digest()
    assert.same({ "a", "b" }, folder({}):identity().class_names)
    files.write(in_folder "list.txt", "")
    lfs.touch(in_folder "a/1.png", 1e9)
    assert.equal(first, digest())
    files.rename(in_folder "a", in_folder "x")
    files.rename(in_folder "b", in_folder "a")
    files.rename(in_folder "x", in_folder "b")
    assert.equal(first, digest()) -- equal pictures
    png.save(in_folder "a/1.png", pictures(1, 9):select(1, 1))
    assert.not_equal(first, digest())
    png.save(in_folder "a/1.png", pg.full({ 4, 4, 3 }, 10, "uint8"))
    png.save(in_folder "a/2.png", pg.full({ 4, 4, 3 }, 10, "uint8"))
    assert.not_equal(first, digest())
  end)
end)

describe("arrays", function()
  it("come from tensors or files, in memory or on the disk", function()
    local images, labels = pictures(7, 4), label_list(7, 3)
    npy.save(in_folder "x.npy", images)
    npy.save(in_folder "y.npy", tensor.tensor(labels, "int32"))
    local o = { classes = 3, batch = 2 }
    local function arrays(more)
      local given = { images = in_folder "x.npy", labels = in_folder "y.npy" }
      for key, value in pairs(o) do given[key] = value end
      for key, value in pairs(more) do given[key] = value end
      return pg.data.arrays(given)
    end
    check_batches(arrays {}, images, labels, 8)
    check_batches(arrays { memory = 100 }, images, labels, 8)
    check_batches(arrays { images = images, labels = tensor.tensor(labels, "int64") }, images, labels, 8)
    assert.equal(arrays({}):digest(), arrays({ images = images, labels = tensor.tensor(labels, "uint8") }):digest())
    images:pointer()[3] = 77
    assert.not_equal(arrays({}):digest(), arrays({ images = images }):digest())
    local first = arrays({ images = images }):digest()
    images:pointer()[images:numel() - 1] = 255 - images:pointer()[images:numel() - 1]
    assert.not_equal(first, arrays({ images = images }):digest())
    local before = arrays({ memory = 100 }):digest()
    assert.equal(before, arrays({ memory = 100 }):digest())
    lfs.touch(in_folder "x.npy", 1e9)
    assert.not_equal(before, arrays({ memory = 100 }):digest())
    fails(function() arrays({ classes = 2 }):open() end, "y.npy: label 2 of sample 2")
    fails(function() arrays { images = in_folder "none.npy" } end, "none.npy is not there; give height and width")
    assert.equal(8, arrays({ images = in_folder "none.npy", height = 8, width = 8 }).width)
    fails(function() arrays { images = pg.zeros { 3, 4 } } end, "images are uint8 [n,H,W,C] or float32 [n,C,H,W]")
    local set = arrays { images = pg.zeros { 7, 4, 8, 8 } }
    assert.same({ 4, 8, 8 }, { set.channels, set.height, set.width })
    assert.same({ 2, 4, 8, 8 }, set:loader():next().latents.shape)
    fails(function() arrays { images = pg.zeros { 7, 4, 8, 8 }, flip = true } end, "only uint8 pictures")
  end)
end)

describe("ImageNet's latents", function()
  local function make(n)
    local labels = {}
    for k = 0, n - 1 do
      local part = ("%05d"):format(math.floor(k / 3))
      files.make_folder(in_folder("images/" .. part))
      files.make_folder(in_folder("vae-sd/" .. part))
      local name = ("%s/img-mean-std-%08d.npy"):format(part, k)
      npy.save(in_folder("vae-sd/" .. name), pg.full({ 8, 2, 2 }, k))
      png.save(in_folder(("images/%s/img%08d.png"):format(part, k)), pg.full({ 16, 16, 3 }, k, "uint8"))
      labels[k + 1] = { name, k % 5 }
    end
    json.write(in_folder "vae-sd/dataset.json", { labels = labels })
  end
  local function latents(o)
    o = o or {}
    o.dir, o.batch, o.size, o.classes = o.dir or in_folder(), 4, 16, 5
    return pg.data.imagenet_latents(o)
  end

  it("go with their pictures and labels", function()
    make(8)
    local set = latents()
    assert.same({ 4, 2, 2, 5 }, { set.channels, set.height, set.width, set.classes })
    local loader = set:loader { seed = 1 }
    for step = 0, 4 do
      local batch = loader:next()
      for k, number in ipairs(loader:indices():totable()) do
        assert.equal(number, batch.latents:totable()[k][8][2][1])
        if step ~= 3 then assert.equal(number, batch.images:totable()[k][3][4][1]) end
        assert.equal(number % 5, batch.labels:totable()[k])
      end
      if step == 2 then loader:want("images", false) end
      if step == 3 then loader:want("images", true) end
    end
    assert.equal(8, #set:digest())
  end)

  it("are drawn again at every step", function()
    make(4)
    local set = latents()
    local batch = set:loader({ shuffle = false }):next()
    local function draw(step) return set:latents(batch, pg.tensor({ 1, step, 0 }, "int64"), "float32"):totable() end
    local a, b = draw(1), draw(2)
    assert.same(a, draw(1))
    assert.not_same(a, b)
    assert.equal(0, a[1][1][1][1]) -- mean and deviation 0
    local mean = 0
    for k = 1, 200 do mean = mean + draw(k)[4][2][1][2] / 200 end
    assert.is_true(math.abs(mean - 3 * 0.18215) < 0.15) -- mean and deviation 3·0.18215; the mean's own: 0.039
    npy.save(in_folder "vae-sd/00001/img-mean-std-00000003.npy",
      pg.ops.concat({ pg.full({ 4, 2, 2 }, 3), pg.zeros { 4, 2, 2 } }, 1))
    batch = latents():loader({ shuffle = false }):next()
    assert.is_true(math.abs(draw(1)[4][2][1][2] - 3 * 0.18215) < 1e-6) -- the scale of SD's autoencoder
  end)

  it("plan without files and say what is wrong with them", function()
    local set = pg.data.imagenet_latents { dir = in_folder "none", batch = 256 }
    assert.same({ 4, 32, 32, 1000, 256 }, { set.channels, set.height, set.width, set.classes, set.image_size })
    assert.same({ 8, 32, 32 }, set:fields()[1].shape)
    fails(function() set:open() end, "data.imagenet_latents: no folder " .. in_folder "none")
    make(6)
    files.rename(in_folder "images/00001/img00000004.png", in_folder "images/00001/img00000009.png")
    fails(function() latents():open() end, "latent 00001/img-mean-std-00000004.npy has no picture of its number")
    assert.equal(6, latents({ images = false }):open().count)
    os.remove(in_folder "images/00001/img00000009.png")
    fails(function() latents():open() end, "5 pictures in images/ and 6 latents in vae-sd/")
    make(6)
    json.write(in_folder "vae-sd/dataset.json", { labels = { { "00000/img-mean-std-00000000.npy", 1 } } })
    fails(function() latents():open() end, "dataset.json: it has no label for 00000/img-mean-std-00000001.npy")
    make(6)
    npy.save(in_folder "vae-sd/00001/img-mean-std-00000005.npy", pg.full({ 8, 2, 3 }, 0))
    local loader = latents():loader()
    assert.equal("6 pictures of 5 classes", latents():summary())
    files.write(in_folder "images/00001/img00000004.jpg", "")
    assert.equal("6 pictures of 5 classes (1 file left out: images/00001/img00000004.jpg)", latents():summary())
    fails(function() for _ = 1, 2 do loader:next() end end, "img-mean-std-00000005.npy: it has")
    fails(function() pg.data.imagenet_latents { dir = "x", batch = 1, crop = 1 } end, "can't be cropped")
  end)

  it("that hold log-variances are not taken for deviations", function()
    make(9)
    npy.save(in_folder "vae-sd/00002/img-mean-std-00000007.npy",
      pg.ops.concat({ pg.full({ 4, 2, 2 }, -3), pg.full({ 4, 2, 2 }, -0.5) }, 1))
    fails(function() latents():open() end, "img-mean-std-00000007.npy: its deviations, channels 5 to 8, hold -0.5",
      "mean and log-variance; write exp(0.5 * logvar)")
  end)
end)

describe("a loader", function()
  local function set_of(n)
    return pg.data.arrays { images = pictures(n, 4), labels = tensor.tensor(label_list(n, 3), "int64"), classes = 3,
      batch = 4, flip = true, crop = 1 }
  end

  it("gives the same batches after a restart, and others for another seed", function()
    local set = set_of(9)
    local function run(o, first, last)
      local loader, out = set:loader(o), {}
      loader:seek(first)
      for step = first, last do out[step] = loader:next().images:totable() end
      return out
    end
    local whole = run({ seed = 3 }, 0, 9)
    for first = 1, 9 do
      local part = run({ seed = 3, threads = first % 4 }, first, 9)
      for step = first, 9 do assert.same(whole[step], part[step]) end
    end
    assert.not_same(whole[0], run({ seed = 4 }, 0, 0)[0])
  end)

  --- The words drawn for an epoch or a position and a purpose ("ordr", "flip", "crop").
  local function drawn(seed, at, k, purpose)
    local low, high = philox.halves(at)
    local code = 0
    for letter in purpose:gmatch "." do code = code * 256 + letter:byte() end
    return philox.words({ low, high, k, code }, { philox.halves(seed) })
  end

  --- docs/data.md's permutation of an epoch.
  local function permutation(seed, epoch, n)
    local p = {}
    for k = 0, n - 1 do p[k] = k end
    for k = n - 1, 1, -1 do
      local w = drawn(seed, epoch, k, "ordr")
      local j = philox.below(w[1], w[2], k + 1)
      p[k], p[j] = p[j], p[k]
    end
    return p
  end

  it("goes through each epoch in the order that docs/data.md says", function()
    for seed, n in pairs { [3] = 9, [2 ^ 40 + 7] = 5 } do
      local loader = set_of(n):loader { seed = seed, batch = 2 }
      for first, step in pairs { [0] = 0, [2 ^ 34] = 2 ^ 33 } do -- the first position of a step
        loader:seek(step)
        local got, expected = {}, {}
        for _ = 1, 2 * n do
          loader:next()
          for _, number in ipairs(loader:indices():totable()) do got[#got + 1] = number end
        end
        for position = first, first + 4 * n - 1 do
          expected[#expected + 1] = permutation(seed, math.floor(position / n), n)[position % n]
        end
        assert.same(expected, got)
      end
      loader:close()
    end
  end)

  it("mirrors and shifts each picture as docs/data.md says", function()
    local seed, n, side = 2 ^ 33 + 5, 6, 4
    local all, black = pictures(n, side):totable(), { 0, 0, 0 }
    local set = pg.data.arrays { images = pictures(n, side), labels = tensor.tensor(label_list(n, 3), "int64"),
      classes = 3, batch = n, flip = true, crop = 2 }
    local loader, flips = set:loader { seed = seed }, 0
    for step = 0, 9 do
      local got, numbers = loader:next().images:totable(), loader:indices():totable()
      for k = 1, n do
        local position = step * n + k - 1
        local flip, w = drawn(seed, position, 0, "flip")[1] >= 2 ^ 31, drawn(seed, position, 0, "crop")
        local down, right = philox.below(w[1], w[2], 5) - 2, philox.below(w[3], w[4], 5) - 2
        local source, expected = all[numbers[k] + 1], {}
        for y = 1, side do
          expected[y] = {}
          for x = 1, side do
            local from = x - right
            if flip then from = side + 1 - from end
            expected[y][x] = source[y - down] and source[y - down][from] or black
          end
        end
        assert.same(expected, got[k])
        flips = flips + (flip and 1 or 0)
      end
    end
    assert.is_true(flips > 15 and flips < 45)
  end)

  it("takes batches of another size and parts of a step", function()
    local set = set_of(9)
    local whole = set:loader { seed = 1, batch = 6 }
    local left = set:loader { seed = 1, batch = 3, stride = 6 }
    local right = set:loader { seed = 1, batch = 3, stride = 6, first = 3 }
    for _ = 1, 4 do
      local all, a, b = whole:next().labels:totable(), left:next().labels:totable(), right:next().labels:totable()
      assert.same(all, { a[1], a[2], a[3], b[1], b[2], b[3] })
    end
  end)

  it("gives its memory back", function()
    collectgarbage()
    collectgarbage()
    local set = set_of(9)
    pg.tidy(function() set:open() end)
    local before = core.C.pg_memory_now(core.C.PG_CPU, -1)
    for _ = 1, 3 do
      pg.tidy(function()
        local loader = set:loader {}
        loader:next()
        loader:close()
      end)
    end
    assert.equal(tonumber(before), tonumber(core.C.pg_memory_now(core.C.PG_CPU, -1)))
  end)

  it("serves a data set of one's own", function()
    local calls = 0
    local set = pg.data.dataset {
      name = "mine", classes = 2, channels = 3, height = 4, width = 4, batch = 2,
      find = function()
        calls = calls + 1
        return 2, { images = { tensor = pictures(2, 4) }, labels = { tensor = tensor.tensor({ 1, 0 }, "int64") } }
      end,
    }
    assert.equal(0, calls)
    check_batches(set, pictures(2, 4), { 1, 0 }, 4)
    assert.equal(1, calls)
    fails(function() return pg.data.cifar11 end, "unknown data set 'cifar11'; expected one of arrays, cifar10, ",
      'did you mean "cifar10"?')
  end)
end)
