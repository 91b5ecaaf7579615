--- JPEG, WebP and PNG files and ADM's centre crop: equal to what Pillow reads and cuts (tests/oracle/pictures.py), and
--- errors with the file's name for whatever is damaged.
local fails = require("tests.lua.expect").fails
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local picture = require "perigee.io.picture"
local tensor = require "perigee.core.tensor"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)
local fixtures = core.home .. "/tests/oracle/fixtures/pictures/"

local function expect_equal(what, a, b)
  assert.same({ unpack(b.shape) }, { unpack(a.shape) }, what)
  local n = a:numel()
  local x, y, different = a:pointer(), b:pointer(), 0
  for k = 0, n - 1 do
    if x[k] ~= y[k] then different = different + 1 end
  end
  assert.equal(0, different, ("%s: %d of %d bytes differ"):format(what, different, n))
end

--- The formula of tests/oracle/pictures.py.
local function formula(width, height)
  local t = tensor.empty({ height, width, 3 }, "uint8")
  local to = t:pointer()
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      for c = 0, 2 do
        to[(y * width + x) * 3 + c] = math.floor((x * x * 7 + y * y * 13 + x * y * 5 + c * 570) / 16) % 256
      end
    end
  end
  return t
end

local KINDS = { "plain.jpg", "halved.jpg", "progressive.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg", "lossy.webp",
  "lossless.webp", "alpha.webp" }

describe("a picture", function()
  for _, name in ipairs(KINDS) do
    it(("%s is read as Pillow reads it"):format(name), function()
      local expected = picture.load(fixtures .. name:gsub("%.", "-") .. ".png")
      expect_equal(name, picture.load(fixtures .. name), expected)
      expect_equal(name, picture.decode("x", files.read(fixtures .. name)), expected)
    end)
  end

  it("is told by its bytes, not its name", function()
    files.write(in_folder "a.png", files.read(fixtures .. "plain.jpg"))
    expect_equal("a.png", picture.load(in_folder "a.png"), picture.load(fixtures .. "plain-jpg.png"))
  end)

  it("that is cut at any byte is an error with its name", function()
    for _, name in ipairs { "halved.jpg", "progressive.jpg", "restarts.jpg", "grey.jpg", "cmyk.jpg", "lossy.webp",
      "lossless.webp", "grey-jpg.png" } do
      local whole = files.read(fixtures .. name)
      for length = 0, #whole - 1 do
        local fine, message = pcall(picture.decode, "cut/" .. name, whole:sub(1, length))
        assert.is_false(fine, ("%s cut to %d bytes was read"):format(name, length))
        assert.is_truthy(tostring(message):find("cut/" .. name .. ": ", 1, true), tostring(message))
      end
    end
  end)

  it("with changed bytes is read or refused", function()
    math.randomseed(5)
    local read, refused = 0, 0
    for _, name in ipairs(KINDS) do
      local whole = files.read(fixtures .. name)
      for _ = 1, 300 do
        local bytes = whole
        for _ = 1, math.random(3) do
          local at = math.random(#bytes)
          bytes = bytes:sub(1, at - 1) .. string.char(math.random(0, 255)) .. bytes:sub(at + 1)
        end
        local fine, message = pcall(picture.decode, "changed", bytes)
        if fine then read = read + 1
        else
          refused = refused + 1
          assert.matches("changed: ", tostring(message), 1, true)
        end
      end
    end
    assert.is_true(read > 100 and refused > 100, ("%d read, %d refused"):format(read, refused))
  end)

  it("of other kinds, of many pictures or of impossible size is refused", function()
    fails(function() picture.load(fixtures .. "animated.webp") end, "animated.webp: an animated WebP")
    fails(function() picture.decode("a.gif", "GIF89a") end, "a.gif: not a picture that can be read: it is a GIF")
    fails(function() picture.decode("a", "hello") end, "a: not a picture that can be read: it is neither PNG, JPEG nor")
    fails(function() picture.decode("a", "") end, "a: not a picture that can be read: it is empty")
    local jpeg = files.read(fixtures .. "plain.jpg")
    local frame = jpeg:find("\255\192", 1, true)
    local huge = jpeg:sub(1, frame + 4) .. "\255\200\255\200" .. jpeg:sub(frame + 9)
    local before = core.C.pg_resident_bytes()
    fails(function() picture.decode("huge", huge) end, "huge: a picture of 65480x65480 (width x height); sides are 1")
    assert.is_true(tonumber(core.C.pg_resident_bytes() - before) < 2 ^ 26)
  end)

  it("of many scans is refused", function()
    local jpeg = files.read(fixtures .. "progressive.jpg")
    local first = jpeg:find("\255\218", 1, true)
    local after = jpeg:find("\255[\196\218]", first + 2)
    local scan = jpeg:sub(first, after - 1)
    picture.decode("scans", jpeg:sub(1, after - 1) .. scan:rep(400) .. jpeg:sub(after))
    fails(function() picture.decode("scans", jpeg:sub(1, after - 1) .. scan:rep(600) .. jpeg:sub(after)) end,
      "scans: not a readable JPEG: it has more than 500 scans")
  end)

  it("of WebP names the package where libwebp is missing", function()
    files.write(in_folder "libwebp.so.7", "no library")
    files.write(in_folder "x.lua", ("print(pcall(require('perigee.io.picture').load, %q))"):format(fixtures
      .. "lossy.webp"))
    local status, text = tiny.perigee("run " .. in_folder "x.lua", "LD_LIBRARY_PATH=" .. in_folder())
    assert.equal(0, status)
    assert.matches("lossy%.webp: a WebP picture, and libwebp is missing; install it: sudo apt%-get install libwebp7",
      text)
  end)
end)

describe("the centre crop", function()
  for name in pairs((function()
    local names = {}
    for _, name in ipairs(files.list(fixtures)) do
      if name:match "^crop" then names[name] = true end
    end
    return names
  end)()) do
    local width, height, side = name:match "^crop%-(%d+)x(%d+)%-(%d+)"
    it(("of %sx%s to %s is Pillow's in every byte"):format(width, height, side), function()
      expect_equal(name, picture.centre_crop(formula(tonumber(width), tonumber(height)), tonumber(side)),
        picture.load(fixtures .. name))
    end)
  end

  it("refuses what is no picture", function()
    fails(function() picture.centre_crop(tensor.empty({ 4, 4 }, "uint8"), 2) end, "a crop of side 2 of [4,4]; expected")
    fails(function() picture.centre_crop(formula(4, 4), 0) end, "a crop of side 0")
  end)

  it("computes only what it keeps", function() -- whole, the scaled picture would take 3 GB
    local long = tensor.empty({ 1, 16384, 3 }, "uint8")
    ffi.fill(long:pointer(), 3 * 16384, 7)
    assert.equal(7, picture.centre_crop(long, 256):pointer()[0])
  end)
end)
