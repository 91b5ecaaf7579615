--- Pictures and records in zip and tar archives, read where they lie; and archives that nobody should have written.
local by_hand = require "tests.lua.archives"
local fails = require("tests.lua.expect").fails
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pg = require "perigee"
local pictures = require "perigee.io.pictures"
local png = require "perigee.io.png"
local tar = require "perigee.io.tar"
local zip = require "perigee.io.zip"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)
local fixtures = core.home .. "/tests/oracle/fixtures/pictures/"
local summed = by_hand.summed

local function put(name, text)
  files.write(in_folder(name), text)
  return in_folder(name)
end

--- The first pixel's red and the label of each picture, in the data set's order.
local function content(set)
  local reader = set:reader { "images", "labels" }
  local found = {}
  for k = 0, set:open().count - 1 do
    local record = reader:read { k }
    found[k + 1] = ("%d %d"):format(record.images:pointer()[0], tonumber(record.labels:pointer()[0]))
  end
  reader:close()
  return table.concat(found, ", ")
end

local function folder(o)
  o.classes, o.size, o.batch, o.threads = o.classes or 3, 8, 4, 2
  return pg.data.folder(o)
end

--- A picture's file, all of one red.
local function one_png(red)
  local image = pg.full({ 8, 8, 3 }, 0, "uint8")
  for k = 0, 63 do image:pointer()[3 * k] = red end
  png.save(in_folder "one.png", image)
  local bytes = files.read(in_folder "one.png")
  os.remove(in_folder "one.png")
  return bytes
end

describe("an archive of pictures", function()
  it("deflated, gives classes by its folders", function()
    local set = folder { dir = fixtures .. "deflated.zip" }
    assert.same("20 0, 80 0, 140 0, 40 1, 100 1, 160 1, 0 2, 60 2, 120 2", content(set))
    assert.same({ "a", "b", "c" }, set.class_names)
    assert.equal("9 pictures of 3 classes", set:summary())
  end)

  it("stored, gives the labels of its dataset.json", function()
    assert.same("20 1, 80 1, 140 1, 40 0, 100 0, 160 0, 0 2, 60 2, 120 2",
      content(folder { dir = fixtures .. "edm2.zip" }))
  end)

  it("of tar reads as a zip does, long names too", function()
    local a, b = one_png(7), one_png(9)
    local long = ("n"):rep(120) .. "/x.png"
    local list = { { "s/b/1.png", b }, { "./s/a/1.png", a }, { "s", "", { kind = "5" } },
      { "L", "s/" .. long .. "\0", { kind = "L" } }, { "cut", a },
      { "x", ("%d path=s/c/2.png\n"):format(18), { kind = "x" } }, { "cut", b }, { "3.png", a, { prefix = "s/c" } },
      { "s/readme", "text" }, { "s/d/._1.png", "not a picture" } }
    local set = folder { dir = put("x.tar", by_hand.tar(list)), classes = 4 }
    assert.same("7 0, 9 1, 9 2, 7 2, 7 3", content(set))
    assert.same({ "a", "b", "c", ("n"):rep(120) }, set.class_names)
    assert.same({ "s/d/._1.png", "s/readme" }, set.left_out)
  end)

  it("is told apart from another by what is in it, not where it lies", function()
    local bytes = files.read(fixtures .. "edm2.zip")
    local first = folder({ dir = put("a.zip", bytes) }):identity().digest
    assert.equal(first, folder({ dir = put("b.zip", bytes) }):identity().digest)
    assert.not_equal(first, folder({ dir = fixtures .. "deflated.zip" }):identity().digest)
  end)

  it("without classes is refused", function()
    local a = one_png(1)
    local path = put("x.zip", by_hand.zip { { "a/1.png", a, summed(a) }, { "a/2.png", a, summed(a) } })
    fails(function() folder({ dir = path }):open() end, "x.zip says no classes")
    fails(function() folder({ dir = fixtures .. "edm2.zip", classes = 2 }):open() end, "label 2 of sample")
    fails(function() folder({ dir = fixtures .. "deflated.zip", classes = 4 }):open() end, "pictures of 3 classes")
  end)
end)

describe("a zip that lies", function()
  local a
  before_each(function() a = one_png(5) end)
  local function of(list, changes) return put("x.zip", by_hand.zip(list, changes)) end
  local function refused(list, ...)
    local path = of(list)
    fails(function()
      local set = folder { dir = path, classes = 2 }
      set:loader({ shuffle = false }):next()
    end, "x.zip", ...)
  end
  local function with(changes, text) return { "b/1.png", text or a, changes } end
  local function both(entry) return { { "a/1.png", a, summed(a) }, entry } end

  it("is refused, with its name and the reason", function()
    folder({ dir = of(both(with(summed(a)))), classes = 2 }):open()
    refused(both(with(summed(a, { flags = 1 }))), "'b/1.png' is encrypted")
    refused(both({ "../b.png", a, summed(a) }), "an entry is named '../b.png'")
    refused(both({ "a/1.png", a, summed(a) }), "'a/1.png' comes twice")
    refused(both(with(summed(a, { bytes = #a + 1 }))), "'b/1.png' has two sizes")
    refused(both(with(summed(a, { crc = 1 }))), "b/1.png: its bytes have another CRC-32")
    refused(both(with(summed(a, { method = 12 }))), "compressed by method 12")
    refused(both(with(summed(a, { method = 8 }))), "b/1.png: its packed bytes are damaged")
    refused(both(with({ method = 8, bytes = 2 ^ 32 - 2 })), "b/1.png: it is larger than 1 GiB")
    refused(both(with({ method = 8, bytes = #a * 1033 })), "its directory says more bytes than its packed ones can")
  end)

  it("about an unpacked size is refused without taking the memory", function()
    local stream = "\0\0\0\255\255" -- an empty stored block that is not the last
    local packed = stream:rep(200000) .. "\1\0\0\255\255"
    local before = tonumber(core.C.pg_resident_bytes())
    refused(both(with({ method = 8, bytes = 2 ^ 29 * 1.9 }, packed)), "its packed bytes are damaged")
    assert.is_true(tonumber(core.C.pg_resident_bytes()) - before < 2 ^ 26)
    local text = ("x"):rep(1000)
    local block = "\1" .. by_hand.little(#text, 2) .. by_hand.little(65535 - #text, 2) .. text
    local good = zip.open(of { { "t", block, summed(text, { method = 8, bytes = #text }) } })
    assert.equal(text, good:read "t")
    for _, bytes in ipairs { #text - 1, #text + 1, 0 } do
      local z = zip.open(of { { "t", block, { method = 8, bytes = bytes, crc = summed(text).crc } } })
      fails(function() z:read "t" end, "x.zip: t: it", "")
    end
  end)

  it("cut at any byte is refused", function()
    local whole = files.read(fixtures .. "edm2.zip")
    for length = 0, #whole - 1, 7 do
      fails(function() zip.open(put("cut.zip", whole:sub(1, length))) end, "cut.zip: not a zip archive")
    end
  end)
end)

describe("a tar that lies", function()
  local function refused(list, changes, ...)
    local path = put("x.tar", by_hand.tar(list, changes))
    fails(function() tar.open(path) end, "x.tar: not a tar archive that can be read", ...)
  end

  it("is refused, with its name and the reason", function()
    tar.open(put("x.tar", by_hand.tar { { "a", "text" } }))
    refused({ { "a", "text", { sum = 1 } } }, nil, "the header at byte 0 is damaged")
    refused({ { "b", "text" }, { "a", "text", { sum = 1 } } }, nil, "the header at byte 1024 is damaged")
    refused({ { "../a", "text" } }, nil, "a member is named '../a'")
    refused({ { "", "text" } }, nil, "a member is named ''")
    refused({ { "/a", "text" } }, nil, "a member is named '/a'")
    refused({ { "a", "text" }, { "a", "text" } }, nil, "'a' comes twice")
    refused({ { "a", "text", { bytes = 2 ^ 32 } } }, nil, "the member at byte 0 lies outside the file")
    refused({ { "a", "text", { size = "\255" .. ("\255"):rep(11) } } }, nil, "a member of more than 2^52 bytes")
    refused({ { "a", "text", { size = "-1         \0" } } }, nil, "no number where one belongs")
    refused({ { "a", ("x"):rep(70000), { kind = "L" } } }, nil, "a name of 70000 bytes")
    refused({ { "a", "99 path=x\n", { kind = "x" } } }, nil, "a pax header is damaged")
    refused({ { "a", "text" } }, { ending = "" }, "it has no end; the download or copy did not finish")
    refused({}, nil, "it is zeros")
    fails(function() tar.open(fixtures .. "plain.jpg") end, "plain.jpg: not a tar archive", "it is a JPEG picture")
  end)

  it("about a size beyond the archive's end is refused by the runtime too", function()
    local path = put("x.tar", by_hand.tar { { "a/1.png", one_png(1) }, { "b/1.png", one_png(2) } })
    local set = pictures.gather(path)
    set.archive.entries["b/1.png"].packed, set.archive.entries["b/1.png"].bytes = 2 ^ 40, 2 ^ 40
    fails(function() set.archive:read("b/1.png") end, "it is larger than 1 GiB")
    local source = pictures.source(set)
    source.augment = true
    local data = pg.data.dataset { name = "x", classes = 2, channels = 3, height = 8, width = 8, batch = 2,
      find = function() return 2, { images = source, labels = { tensor = pg.zeros({ 2 }, "int64") } } end }
    fails(function() data:loader({ shuffle = false }):next() end, "x.tar: b/1.png: it lies outside the file")
  end)
end)
