--- Files, JSON, npy, npz, PNG and safetensors: what is written reads back, what lies is refused with a message.
local fails = require("tests.lua.expect").fails
local ffi = require "ffi"
local lfs = require "lfs"
local pg = require "perigee"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local png = require "perigee.io.png"
local safetensors = require "perigee.io.safetensors"
local tensor = require "perigee.core.tensor"

ffi.cdef "int getpid(void);"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function put(path, bytes)
  os.remove(path)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

local function little(value, bytes)
  local digits = {}
  for k = 1, bytes do
    digits[k] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(digits)
end

--- Changes, cuts or doubles some bytes of a text.
local function mutate(text)
  for _ = 1, math.random(4) do
    local at, kind = math.random(#text), math.random(8)
    local length = math.random(math.min(16, #text - at + 1))
    if kind == 1 then text = text:sub(1, at)
    elseif kind == 2 then text = text:sub(1, at + length - 1) .. text:sub(at)
    elseif kind == 3 then text = text:sub(1, at - 1) .. text:sub(at + length)
    elseif kind == 4 then text = text:sub(1, at - 1) .. tostring(math.random(0, 2 ^ 31 - 1)) .. text:sub(at)
    else text = text:sub(1, at - 1) .. string.char(math.random(0, 255)) .. text:sub(at + 1) end
    if text == "" then return " " end
  end
  return text
end

describe("files", function()
  it("makes, lists and removes folders", function()
    files.make_folder(in_folder "a/b/c")
    files.make_folder(in_folder "a/b/c")
    files.write(in_folder "a/two", "2")
    files.write(in_folder "a/one", "1")
    assert.same({ "b", "one", "two" }, files.list(in_folder "a"))
    assert.equal("directory", files.kind(in_folder "a/b"))
    assert.equal(1, files.stat(in_folder "a/one").bytes)
    files.remove_tree(in_folder "a")
    assert.is_false(files.exists(in_folder "a"))
    files.remove(in_folder "a")
    fails(function() files.list(in_folder "none") end, "none: folder not found")
    put(in_folder "file", "")
    fails(function() files.make_folder(in_folder "file/x") end, "file: cannot be made", "File exists")
  end)

  it("reads parts and says what is missing", function()
    put(in_folder "x", "0123456789")
    assert.equal("0123456789", files.read(in_folder "x"))
    assert.equal("345", files.read(in_folder "x", 3, 3))
    fails(function() files.read(in_folder "x", 8, 3) end, "x: 3 bytes at offset 8", "10 bytes")
    fails(function() files.read(in_folder "none") end, "none: cannot be opened", "No such file")
  end)

  it("writes whole files or none", function()
    files.write(in_folder "x", "old")
    fails(function()
      files.with_writer(in_folder "x", function(w)
        w:write "new"
        error "no more"
      end)
    end, "no more")
    assert.equal("old", files.read(in_folder "x"))
    core.C.pg_writer_fail_after(2)
    fails(function() files.write(in_folder "x", "new") end, "x: cannot be written", "No space left on device")
    core.C.pg_writer_fail_after(-1)
    assert.equal("old", files.read(in_folder "x"))
    assert.same({ "x" }, files.list(in_folder()))
    local w = files.writer(in_folder "x")
    w:commit()
    fails(function() w:write "more" end, "x: this writer has ended")
  end)

  it("sweeps what killed processes left, one of this process's number too", function()
    for _, number in ipairs { 999999999, 1, ffi.C.getpid() } do
      put(in_folder(("x.tmp-%d-0"):format(tonumber(number))), "")
    end
    put(in_folder "x.tmp", "")
    put(in_folder "y.tmp-1-0", "")
    files.sweep(in_folder(), "x")
    assert.same({ "x.tmp", "y.tmp-1-0" }, files.list(in_folder()))
    local w = files.writer(in_folder "z") -- under way: it stays
    files.sweep(in_folder())
    w:commit()
    assert.same({ "x.tmp", "z" }, files.list(in_folder()))
    files.sweep(in_folder "none")
  end)

  it("lists a folder of many names", function()
    for k = 1, 300 do put(in_folder(("%03d%s"):format(k, ("x"):rep(100))), "") end
    local names = files.list(in_folder())
    assert.equal(300, #names)
    assert.equal("300" .. ("x"):rep(100), names[300])
  end)

  it("does not take what cannot be looked at for nothing", function()
    local found = lfs.attributes
    local calls = 0
    local function answering(number)
      lfs.attributes = function(path, name)
        calls = calls + 1
        if calls == 1 then return nil, "cannot obtain information from file 'x': Input/output error", number end
        return found(path, name)
      end
    end
    answering(5) -- EIO
    local fine, message = pcall(files.exists, in_folder())
    answering(4) -- EINTR: asked again
    calls = 0
    local exists = files.exists(in_folder())
    lfs.attributes = found
    assert.is_false(fine)
    assert.matches(": cannot be looked at: Input/output error", message, 1, true)
    assert.same({ true, 2 }, { exists, calls })
  end)

  it("appends to a file beside other writers, and goes on after a full disk", function()
    put(in_folder "log", "0\n")
    local a, b = files.append(in_folder "log"), files.append(in_folder "log")
    a:write "1\n"
    b:write "2\n"
    core.C.pg_writer_fail_after(1)
    fails(function() a:write "3\n" end, "log: cannot be written: No space left on device")
    core.C.pg_writer_fail_after(-1)
    a:write "\n4\n"
    a:suspend()
    b:suspend()
    assert.equal("0\n1\n2\n3\n4\n", files.read(in_folder "log"))
  end)
end)

describe("JSON", function()
  it("reads what it wrote", function()
    local value = {
      text = "a\"\\/\n\t\1é", list = { 1, 2.5, -3e-7, { true, false } }, empty = json.array {}, object = {},
      nothing = json.null, small = 5e-324, third = 1 / 3, large = 2 ^ 53 - 1, huge = 1.7976931348623157e308,
    }
    local text = json.encode(value)
    assert.same(value, json.decode(text))
    assert.equal(text, json.encode(json.decode(text)))
    assert.equal(json.encode(value, true), json.encode(json.decode(json.encode(value, true)), true))
    json.write(in_folder "x.json", value)
    assert.same(value, json.read(in_folder "x.json"))
  end)

  it("sorts names and tells arrays from objects", function()
    assert.equal('{"a":[],"b":{},"c":[1,2]}', json.encode { c = { 1, 2 }, a = json.array {}, b = {} })
    assert.equal("[]", json.encode(json.decode "[]"))
    assert.equal("{}", json.encode(json.decode "{}"))
    assert.equal('[0.1,-0.0,1e+300,100000]', json.encode { 0.1, -0.0, 1e300, 1e5 })
  end)

  it("decodes escapes", function()
    assert.equal("é😀\n/", json.decode [["\u00e9\ud83d\ude00\n\/"]])
    fails(function() json.decode [["\ud800"]] end, "half of a surrogate pair")
    fails(function() json.decode '"\1"' end, "a control character")
  end)

  it("refuses what is no JSON, naming file and line", function()
    for _, bad in ipairs { "", "[1,]", "[1 2]", '{"a"}', '{"a":1,}', "01", "1.", ".5", "1e", "-", "nul", '"a', "[1]x",
      "{a:1}", "'a'", "NaN", "Infinity", "0x10", "[,]", '{"a":1 "b":2}', "+1", "1.e5", "--1" } do
      fails(function() json.decode(bad, "bad.json") end, "bad.json: line 1: ")
    end
    fails(function() json.decode('{\n"a": 1,\n"a": 2}', "x") end, "x: line 3: the name 'a' comes twice")
    fails(function() json.decode(("["):rep(1000)) end, "levels of nesting")
    put(in_folder "x.json", "{")
    fails(function() json.read(in_folder "x.json") end, "x.json: line 1: expected a name in quotes")
  end)

  it("refuses what JSON can't hold, naming the place", function()
    fails(function() json.encode { a = { b = 0 / 0 } } end, "value.a.b")
    fails(function() json.encode { a = print } end, "a function", "value.a")
    fails(function() json.encode { a = 1, [2] = 2 } end, "the key 2")
    local loop = {}
    loop.again = loop
    fails(function() json.encode(loop) end, "nested too deeply")
  end)

  it("survives mutations", function()
    math.randomseed(1)
    local text = json.encode({ a = { 1, 2.5, "x\n" }, b = { c = true, d = json.null }, ["é"] = "\\" }, true)
    for _ = 1, 10000 do
      local fine, message = pcall(json.decode, mutate(text), "x.json")
      if not fine then assert.is_truthy(message:find("x.json: line", 1, true), message) end
    end
  end)
end)

local function npy_file(dictionary, data, version)
  local length = #dictionary
  local size = (version or 1) == 1 and little(length, 2) or little(length, 4)
  return "\147NUMPY" .. string.char(version or 1, 0) .. size .. dictionary .. data
end

describe("npy", function()
  it("reads what it wrote", function()
    for _, dtype in ipairs { "float32", "float64", "int32", "int64", "uint8" } do
      for _, shape in ipairs { {}, { 3 }, { 2, 3 }, { 0, 4 }, { 1, 2, 3, 1 } } do
        local numbers, n = {}, 1
        for _, size in ipairs(shape) do n = n * size end
        for k = 1, n do numbers[k] = k end
        local t = tensor.tensor(ffi.new(core.ctype[dtype] .. "[?]", math.max(n, 1), numbers), shape, dtype)
        npy.save(in_folder "x.npy", t)
        local got = npy.load(in_folder "x.npy")
        assert.same(shape, got.shape)
        assert.equal(dtype, got.dtype)
        assert.same(t:totable(), got:totable())
        assert.equal(0, npy.header(in_folder "x.npy").offset % 64)
      end
    end
  end)

  it("reads rows", function()
    npy.save(in_folder "x.npy", pg.tensor({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, "int32"))
    assert.same({ { 3, 4 }, { 5, 6 } }, npy.load(in_folder "x.npy", 2):totable())
    assert.same({ { 3, 4 } }, npy.load(in_folder "x.npy", 2, 1):totable())
    assert.same({ 0, 2 }, npy.load(in_folder "x.npy", 4, 0).shape)
    fails(function() npy.load(in_folder "x.npy", 2, 3) end, "x.npy: rows 2 to 4", "it has 3")
  end)

  it("saves views and knows what NumPy does not", function()
    pg.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):permute({ 2, 1 }):save(in_folder "x.npy")
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, pg.load(in_folder "x.npy"):totable())
    fails(function() npy.save(in_folder "x.npy", tensor.empty({ 2 }, "bfloat16")) end, "x.npy: NumPy has no bfloat16")
  end)

  it("reads every version and spelling", function()
    local data = little(1, 4) .. little(2, 4)
    for version = 1, 3 do
      for _, dictionary in ipairs {
        "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }   \n",
        '{"shape":(2,),"descr":"<i4","fortran_order":False}',
        "{ 'shape' : ( 2L , ) , 'fortran_order' : False , 'descr' : '<i4' }\n",
      } do
        put(in_folder "x.npy", npy_file(dictionary, data, version))
        assert.same({ 1, 2 }, npy.load(in_folder "x.npy"):totable())
      end
    end
  end)

  it("refuses what lies", function()
    local function dictionary(descr, fortran, shape)
      return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"):format(descr, fortran, shape)
    end
    local data = ("\0"):rep(24)
    local cases = {
      { "", "it is empty" }, { "\147NUMPX\1\0\0\0", "does not begin with" },
      { npy_file(dictionary("<f4", "False", "(2, 3)"), data, 4), "format version 4" },
      { npy_file(dictionary("<f4", "False", "(2, 3)"), data):sub(1, 40), "a header of" },
      { npy_file(dictionary("<f4", "False", "(2, 3)"), data):sub(1, -2), "needs 24 bytes, the file has 23" },
      { npy_file(dictionary("<f4", "False", "(2, 3)"), data .. "x"), "needs 24 bytes, the file has 25" },
      { npy_file(dictionary("<f4", "False", "(2, 4)"), data), "[2,4] of float32 needs 32 bytes" },
      { npy_file(dictionary("<f4", "False", "(99999999999, 99999999999)"), data), "needs" },
      { npy_file(dictionary("<f4", "False", "(" .. ("9"):rep(400) .. ",)"), data), "needs" },
      { npy_file(dictionary("<f4", "False", "(-2, 3)"), data), "not a tuple of sizes" },
      { npy_file(dictionary("<f4", "False", "(2 3)"), data), "its shape is (2 3)" },
      { npy_file(dictionary("<f4", "False", "(1,1,1,1,1,1,1,2,3)"), data), "9 dimensions" },
      { npy_file(dictionary("<f4", "True", "(2, 3)"), data), "Fortran order" },
      { npy_file(dictionary("<f4", "Talse", "(2, 3)"), data), "Fortran order" },
      { npy_file(dictionary(">f4", "False", "(2, 3)"), data), "its dtype is '>f4'" },
      { npy_file(dictionary("|O", "False", "(2, 3)"), data), "its dtype is '|O'" },
      { npy_file("{'descr': '<f4', 'shape': (2, 3)}", data), "no 'fortran_order'" },
      { npy_file("{'descr': '<f4', 'descr': '<f8', 'shape': (2, 3)}", data), "malformed" },
      { npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}", data), "entry 'more'" },
      { npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} + exit()", data), "something follows" },
      { npy_file("print(1)", data), "not a dictionary" },
    }
    for _, case in ipairs(cases) do
      put(in_folder "x.npy", case[1])
      fails(function() npy.load(in_folder "x.npy") end, "x.npy: not a .npy file that can be read", case[2])
    end
    fails(function() npy.load(in_folder "none.npy") end, "none.npy: cannot be opened")
  end)

  it("survives mutations", function()
    math.randomseed(2)
    npy.save(in_folder "x.npy", pg.tensor { { 1, 2, 3 }, { 4, 5, 6 } })
    local text, read = files.read(in_folder "x.npy"), 0
    for _ = 1, 10000 do
      put(in_folder "y.npy", mutate(text))
      local fine, result = pcall(npy.load, in_folder "y.npy")
      if fine then
        read = read + 1
        result:free()
      else assert.is_truthy(result:find("y.npy: not a .npy file", 1, true), result) end
    end
    assert.is_true(read > 100)
  end)
end)

describe("npz", function()
  local function samples(first, count)
    local t = tensor.empty({ count, 2, 3, 3 }, "uint8")
    for k = 0, count * 18 - 1 do t:pointer()[k] = (first * 18 + k) % 251 end
    return t
  end

  --- The numbers little-endian at a place of a text.
  local function number(text, at, bytes)
    local value = 0
    for k = bytes, 1, -1 do value = value * 256 + text:byte(at + k) end
    return value
  end

  --- Checks the archive's structure by its own directory, and returns the entry's content.
  local function entry(path)
    local text = files.read(path)
    local last = #text - 22
    assert.equal("PK\5\6", text:sub(last + 1, last + 4))
    local locator = last - 20
    assert.equal("PK\6\7", text:sub(locator + 1, locator + 4))
    local zip64 = number(text, locator + 8, 8)
    assert.equal("PK\6\6", text:sub(zip64 + 1, zip64 + 4))
    assert.equal(1, number(text, zip64 + 32, 8))
    local central = number(text, zip64 + 48, 8)
    assert.equal(zip64, central + number(text, zip64 + 40, 8))
    assert.equal("PK\1\2", text:sub(central + 1, central + 4))
    assert.equal("arr_0.npy", text:sub(central + 47, central + 55))
    local bytes, crc = number(text, central + 59, 8), number(text, central + 16, 4)
    assert.equal("PK\3\4", text:sub(1, 4))
    assert.equal(crc, number(text, 14, 4))
    assert.equal(bytes, number(text, 43, 8))
    local content = text:sub(60, 59 + bytes)
    assert.equal(central, 59 + bytes)
    assert.equal(crc, core.C.pg_crc32(0, content, #content))
    return content
  end

  local function write(path, parts)
    for k, part in ipairs(parts) do
      local w = npz.writer(path, { 2, 3, 3 })
      assert.equal(part[1], w.count)
      w:append(samples(part[1], part[2]))
      if k == #parts then w:finish() else w:suspend() end
    end
  end

  it("holds one array and is the same however it was interrupted", function()
    write(in_folder "a.npz", { { 0, 7 } })
    write(in_folder "b.npz", { { 0, 2 }, { 2, 4 }, { 6, 1 } })
    assert.equal(files.read(in_folder "a.npz"), files.read(in_folder "b.npz"))
    put(in_folder "x.npy", entry(in_folder "a.npz"))
    assert.same(samples(0, 7):totable(), npy.load(in_folder "x.npy"):totable())
    assert.same({ "a.npz", "b.npz", "x.npy" }, files.list(in_folder()))
  end)

  it("continues after a kill at any byte", function()
    write(in_folder "a.npz", { { 0, 3 } })
    local whole = files.read(in_folder "a.npz")
    local w = npz.writer(in_folder "b.npz", { 2, 3, 3 })
    w:append(samples(0, 3))
    w:suspend()
    local part = files.read(in_folder "b.npz.part")
    for length = 0, #part, 7 do
      put(in_folder "b.npz.part", part:sub(1, length))
      w = npz.writer(in_folder "b.npz", { 2, 3, 3 })
      assert.equal(math.max(0, math.floor((length - 187) / 18)), w.count)
      w:append(samples(w.count, 3 - w.count))
      w:finish()
      assert.equal(whole, files.read(in_folder "b.npz"))
    end
    for length = #part, #whole do -- killed inside finish()
      put(in_folder "b.npz.part", whole:sub(1, length))
      w = npz.writer(in_folder "b.npz", { 2, 3, 3 })
      assert.equal(3, w.count)
      w:finish()
      assert.equal(whole, files.read(in_folder "b.npz"))
    end
  end)

  --- An archive as numpy.savez writes it: 64-bit sizes in the entries, 32-bit ones in the directory.
  local function archive(arrays, method)
    local text, central, many = "", "", ("\255"):rep(4)
    for _, array in ipairs(arrays) do
      npy.save(in_folder "part.npy", array[2])
      local bytes, name, at = files.read(in_folder "part.npy"), array[1] .. ".npy", #text
      local head = little(method or 0, 2) .. ("\0"):rep(4) .. little(core.C.pg_crc32(0, bytes, #bytes), 4)
      text = text .. "PK\3\4" .. little(45, 2) .. little(0, 2) .. head .. many .. many .. little(#name, 2)
        .. little(20, 2) .. name .. little(1, 2) .. little(16, 2) .. little(#bytes, 8) .. little(#bytes, 8) .. bytes
      central = central .. "PK\1\2" .. little(45, 2) .. little(45, 2) .. little(0, 2) .. head .. little(#bytes, 4)
        .. little(#bytes, 4) .. little(#name, 2) .. ("\0"):rep(12) .. little(at, 4) .. name
    end
    files.remove(in_folder "part.npy")
    return text .. central .. "PK\5\6" .. little(0, 4) .. little(#arrays, 2):rep(2) .. little(#central, 4)
      .. little(#text, 4) .. little(0, 2)
  end

  local function load(name)
    local header = npz.header(in_folder "m.npz", name)
    return files.read_tensor(header.path, header.offset, tensor.empty(header.shape, header.dtype)):totable()
  end

  it("is read by the names of its arrays, from numpy.savez and from here", function()
    local text, place = { { 1, 2, 3 }, { 4, 5, 6 } }, { 7, 8 }
    local arrays = { { "text", tensor.tensor(text) }, { "place", tensor.tensor(place, "int64") } }
    put(in_folder "m.npz", archive(arrays))
    assert.same(text, load "text")
    assert.same(place, load "place")
    fails(function() load "texts" end, "m.npz: it has no array 'texts'; it has text, place", "did you mean \"text\"?")
    put(in_folder "m.npz", archive { arrays[1] })
    assert.same(text, load "any name")
    write(in_folder "a.npz", { { 0, 3 } })
    put(in_folder "m.npz", files.read(in_folder "a.npz"))
    assert.same(samples(0, 3):totable(), load "arr_0")
    put(in_folder "m.npz", archive(arrays, 8))
    fails(function() load "text" end, "'text.npy' is compressed; write it with numpy.savez")
    put(in_folder "m.npz", "PK")
    fails(function() load "text" end, "m.npz: not a zip archive that can be read: it has 2 bytes")
    put(in_folder "m.npz", "<!DOCTYPE html><html><body>Not found</body></html>")
    fails(function() load "text" end, "m.npz: not a zip archive that can be read: it is ", "HTML")
  end)

  it("that is damaged is refused, or reads", function()
    local whole = archive { { "text", tensor.tensor { 1, 2, 3 } }, { "place", tensor.tensor { 7, 8 } } }
    local refused = 0
    for at = 1, #whole do
      for _, byte in ipairs { 0, 255 } do
        put(in_folder "m.npz", whole:sub(1, at - 1) .. string.char(byte) .. whole:sub(at + 1))
        local fine, message = pcall(load, "place")
        if not fine then
          refused = refused + 1
          assert.matches("m%.npz: ", message)
        end
      end
    end
    assert.is_true(refused > 100)
  end)

  it("refuses what does not fit", function()
    local w = npz.writer(in_folder "a.npz", { 2, 3, 3 })
    local turned = tensor.empty({ 1, 3, 2, 3 }, "uint8")
    fails(function() w:append(turned) end, "a.npz: samples are uint8 [n,2,3,3]", "[1,3,2,3]")
    w:append(samples(0, 1))
    w:suspend()
    fails(function() npz.writer(in_folder "a.npz", { 3, 2, 3 }) end, "a.npz.part: it holds no samples uint8 [3,2,3]")
  end)
end)

describe("npz of latents", function()
  it("holds float32 arrays, and is taken up as such alone", function()
    local latents = pg.full({ 2, 4, 3, 3 }, 0.5)
    for k = 1, 2 do
      local w = npz.writer(in_folder "a.npz", { 4, 3, 3 }, "float32")
      assert.equal(2 * (k - 1), w.count)
      w:append(latents)
      if k == 1 then
        fails(function() npz.writer(in_folder "a.npz", { 4, 3, 3 }) end, "a.npz.part: another process writes it")
        w:suspend()
      else w:finish() end
    end
    local text = files.read(in_folder "a.npz")
    put(in_folder "x.npy", text:sub(text:find("\147NUMPY", 1, true), -1):sub(1, 128 + 4 * 4 * 36))
    assert.same(pg.full({ 4, 4, 3, 3 }, 0.5):totable(), npy.load(in_folder "x.npy"):totable())
  end)
end)

describe("PNG", function()
  it("reads what it wrote", function()
    local picture = tensor.empty({ 3, 5, 3 }, "uint8")
    for k = 0, 44 do picture:pointer()[k] = k * 5 end
    png.save(in_folder "x.png", picture)
    assert.same(picture:totable(), png.load(in_folder "x.png"):totable())
    pg.save_png(in_folder "y.png", picture:narrow(2, 2, 3))
    assert.same(picture:narrow(2, 2, 3):totable(), pg.load_png(in_folder "y.png"):totable())
    fails(function() png.save(in_folder "z.png", pg.zeros { 2, 2, 3 }) end, "z.png: a picture is uint8 [H,W,3]")
    put(in_folder "z.png", "no")
    fails(function() png.load(in_folder "z.png") end, "z.png: not a picture that can be read")
  end)
end)

describe("safetensors with sums", function()
  local function save(path)
    safetensors.save(path, { a = pg.full({ 3, 5 }, 2), b = pg.full({ 70000 }, 7), none = pg.zeros { 0 } },
      { step = "7" }, { sums = true })
    return path
  end

  local function flip(path, at)
    local text = files.read(path)
    put(path, text:sub(1, at - 1) .. string.char((text:byte(at) + 64) % 256) .. text:sub(at + 1))
  end

  it("say them, and equal contents make equal files", function()
    local path = save(in_folder "x")
    local file = safetensors.open(path)
    local bytes = files.read(path, file.entries.a.offset, 60)
    assert.equal(("%08x"):format(core.C.pg_crc32(0, bytes, 60)), file.sums.a)
    assert.equal("7", file.metadata.step)
    assert.equal("00000000", file:sum "none")
    assert.equal(files.read(path), files.read(save(in_folder "y")))
    file:verify()
    assert.same({ 2, 2, 2, 2, 2 }, safetensors.load(path).a:totable()[3])
  end)

  it("name the tensor in which a bit is wrong", function()
    local path = save(in_folder "x")
    flip(path, #files.read(path) - 3)
    local file = safetensors.open(path)
    file:read "a"
    for _, read in ipairs { function() file:read "b" end, function() file:verify() end } do
      fails(read, "x: tensor 'b' is damaged: its bytes have the CRC-32 ", "; expected " .. file.sums.b)
    end
  end)

  it("are given where a file has none, and refused where they are no sums", function()
    local path = save(in_folder "x")
    local tensors, sum = { a = pg.full({ 3, 5 }, 2), b = pg.zeros { 1 } }, safetensors.open(path).sums.a
    safetensors.save(path, tensors)
    assert.equal(sum, safetensors.open(path):sum "a")
    safetensors.open(path):verify()
    safetensors.save(path, tensors, { perigee_crc32 = '{"a":"00000000"}' })
    fails(function() safetensors.open(path) end, "its metadata's perigee_crc32 has no sum of tensor 'b'")
    safetensors.save(path, tensors, { perigee_crc32 = "none" })
    fails(function() safetensors.open(path) end, "its metadata's perigee_crc32 is not a JSON object")
  end)
end)

local function safetensors_file(header, data, length)
  return little(length or #header, 8) .. header .. data
end

describe("safetensors", function()
  local function example()
    return {
      weights = pg.tensor { { 1, 2, 3 }, { 4, 5, 6 } }, bias = pg.tensor({ 0.5, -2 }, "bfloat16"),
      labels = pg.tensor({ 1, 2, 3 }, "int64"), steps = pg.tensor(7, {}, "int32"),
      pixels = pg.tensor({ 1, 2, 3 }, "uint8"),
      exact = pg.tensor({ 1 / 3 }, "float64"), none = tensor.empty({ 0, 3 }, "float32"),
    }
  end

  it("reads what it wrote, and equal contents make equal files", function()
    local given = example()
    safetensors.save(in_folder "a.safetensors", given, { step = "7", text = "é\n" })
    safetensors.save(in_folder "b.safetensors", example(), { text = "é\n", step = "7" })
    assert.equal(files.read(in_folder "a.safetensors"), files.read(in_folder "b.safetensors"))
    local got, metadata = safetensors.load(in_folder "a.safetensors")
    assert.same({ step = "7", text = "é\n" }, metadata)
    for name, t in pairs(given) do
      assert.equal(t.dtype, got[name].dtype)
      assert.same(t.shape, got[name].shape)
      assert.same(t:totable(), got[name]:totable())
    end
    local file = safetensors.open(in_folder "a.safetensors")
    for _, name in ipairs(file.names) do
      local entry = file:info(name)
      assert.equal(0, entry.offset % core.dtype_bytes[entry.dtype])
    end
  end)

  it("reads one tensor, into a given one", function()
    safetensors.save(in_folder "a.safetensors", example())
    local file, into = safetensors.open(in_folder "a.safetensors"), pg.zeros { 2, 3 }
    assert.equal(into, file:read("weights", into))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, into:totable())
    fails(function() file:read("weights", pg.zeros { 3, 2 }) end, "tensor 'weights' is float32 [2,3]", "float32 [3,2]")
    fails(function() file:read "nothing" end, "a.safetensors: it has no tensor 'nothing'")
  end)

  it("reads half precision as float32", function()
    local bits = { 0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x3555, 0x7c00, 0xfc00 }
    local values = { 0, 0, 1, -2, 65504, 2 ^ -24, 1023 * 2 ^ -24, 2 ^ -14, 0.333251953125, math.huge, -math.huge }
    local data = ""
    for _, b in ipairs(bits) do data = data .. little(b, 2) end
    put(in_folder "h.safetensors", safetensors_file('{"x":{"dtype":"F16","shape":[11],"data_offsets":[0,22]}}', data))
    local t = safetensors.load(in_folder "h.safetensors").x
    assert.equal("float32", t.dtype)
    assert.same(values, t:totable())
  end)

  it("reads float8 as float32, small integers as larger ones", function()
    local cases = { -- bits, and what they are
      { "F8_E4M3", "\0\128\56\192\126\1\8", "float32", { 0, 0, 1, -2, 448, 2 ^ -9, 2 ^ -6 } },
      { "F8_E5M2", "\0\60\192\123\1\124\252", "float32", { 0, 1, -2, 57344, 2 ^ -16, math.huge, -math.huge } },
      { "I8", "\255\127\128\0\1\2\3", "int32", { -1, 127, -128, 0, 1, 2, 3 } },
      { "BOOL", "\1\0\1\1\0\0\1", "uint8", { 1, 0, 1, 1, 0, 0, 1 } },
    }
    for _, case in ipairs(cases) do
      put(in_folder "f.safetensors",
        safetensors_file(('{"x":{"dtype":"%s","shape":[7],"data_offsets":[0,7]}}'):format(case[1]), case[2]))
      local t = safetensors.load(in_folder "f.safetensors").x
      assert.equal(case[3], t.dtype)
      assert.same(case[4], t:totable(), case[1])
    end
    put(in_folder "f.safetensors",
      safetensors_file('{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', "\127\255"))
    for _, x in ipairs(safetensors.load(in_folder "f.safetensors").x:totable()) do assert.is_true(x ~= x) end
    put(in_folder "f.safetensors",
      safetensors_file('{"x":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}', ("\255"):rep(8)))
    fails(function() safetensors.load(in_folder "f.safetensors") end, "tensor 'x' holds a number of 2^63 or more")
  end)

  it("names a dtype that it can't read", function()
    put(in_folder "b.safetensors", safetensors_file('{"x":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}',
      ("\0"):rep(8)))
    local file = safetensors.open(in_folder "b.safetensors")
    fails(function() file:read "x" end, "tensor 'x' is C64, which can't be read")
  end)

  it("leaves the old file where the disk is full", function()
    safetensors.save(in_folder "a.safetensors", example(), { step = "1" })
    local before = files.read(in_folder "a.safetensors")
    for _, room in ipairs { 0, 7, 100, #before - 1 } do
      core.C.pg_writer_fail_after(room)
      fails(function() safetensors.save(in_folder "a.safetensors", example(), { step = "2" }) end,
        "a.safetensors: cannot be written", "No space left on device")
      core.C.pg_writer_fail_after(-1)
      assert.equal(before, files.read(in_folder "a.safetensors"))
      assert.same({ "a.safetensors" }, files.list(in_folder()))
    end
  end)

  it("refuses what lies", function()
    local function one(entry) return ('{"x":%s}'):format(entry) end
    local function entry(shape, from, to, dtype)
      return ('{"dtype":"%s","shape":%s,"data_offsets":[%s,%s]}'):format(dtype or "F32", shape, from, to)
    end
    local data, fine = ("\0"):rep(24), one(entry("[2,3]", 0, 24))
    local cases = {
      { "short", "it has 5 bytes" },
      { safetensors_file(fine, data, 10 ^ 6), "the header is said to have 1000000 bytes" },
      { safetensors_file(fine, data, 2 ^ 63), "the header is said to have" },
      { safetensors_file("[" .. fine, data), "does not begin with '{'" },
      { safetensors_file(fine:sub(1, -2), data), "line 1" },
      { safetensors_file(fine, data:sub(2)), "tensor 'x' lies at bytes 0 to 24 of 23" },
      { safetensors_file(fine, data .. "x"), "its last 1 bytes belong to no tensor" },
      { safetensors_file(one(entry("[2,4]", 0, 24)), data), "has 24 bytes, its shape [2,4] of F32 needs 32" },
      { safetensors_file(one(entry("[2,3]", 24, 0)), data), "lies at bytes 24 to 0" },
      { safetensors_file(one(entry("[2,3]", -24, 0)), data), "no two data_offsets" },
      { safetensors_file(one(entry("[2,3]", 0, 24.5)), data), "no two data_offsets" },
      { safetensors_file(one(entry("[2,3]", 0, "1e300")), data), "no two data_offsets" },
      { safetensors_file(one(entry("[-2,3]", 0, 24)), data), "dimension 1 is -2" },
      { safetensors_file(one(entry("[2.5]", 0, 24)), data), "dimension 1 is 2.5" },
      { safetensors_file(one(entry('["2"]', 0, 24)), data), "dimension 1 is 2" },
      { safetensors_file(one(entry("{}", 0, 24)), data), "no list as its shape" },
      { safetensors_file(one(entry("6", 0, 24)), data), "no list as its shape" },
      { safetensors_file(one(entry("[4294967296,4294967296,1]", 0, 0)), ""), "absurd shape" },
      { safetensors_file(one(entry("[1,1,1,1,1,1,1,2,3]", 0, 24)), data), "9 dimensions" },
      { safetensors_file(one(entry("[2,3]", 0, 24, "F31")), data), "unknown dtype 'F31'" },
      { safetensors_file('{"x":7}', data), "tensor 'x' is described by a number" },
      { safetensors_file('{"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24],"y":1}}', data), "property 'y'" },
      { safetensors_file('{"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0]}}', data), "no two data_offsets" },
      { safetensors_file('{"x":{"shape":[2,3],"data_offsets":[0,24]}}', data), "unknown dtype 'nil'" },
      { safetensors_file(('{"x":%s,"x":%s}'):format(entry("[6]", 0, 24), entry("[6]", 0, 24)), data), "comes twice" },
      { safetensors_file(('{"x":%s,"y":%s}'):format(entry("[4]", 0, 16), entry("[4]", 8, 24)), data), "overlaps" },
      { safetensors_file(('{"x":%s,"y":%s}'):format(entry("[6]", 0, 24), entry("[6]", 0, 24)), data), "overlaps" },
      { safetensors_file(('{"x":%s,"y":%s}'):format(entry("[2]", 0, 8), entry("[2]", 16, 24)), data),
        "8 bytes before tensor 'y' belong to none" },
      { safetensors_file('{"__metadata__":{"a":1}}', ""), "__metadata__ holds texts only" },
      { safetensors_file('{"__metadata__":[]' .. ',"x":' .. entry("[6]", 0, 24) .. "}", data .. "x"), "x" },
    }
    for _, case in ipairs(cases) do
      put(in_folder "x.safetensors", case[1])
      fails(function() safetensors.open(in_folder "x.safetensors") end, "x.safetensors: ", case[2])
    end
    put(in_folder "x.safetensors", safetensors_file(fine .. "   ", data)) -- padding is allowed
    assert.same({ 2, 3 }, safetensors.load(in_folder "x.safetensors").x.shape)
    fails(function() safetensors.open(in_folder "none.safetensors") end, "none.safetensors: cannot be opened")
    fails(function() safetensors.save(in_folder "y", { x = 1 }) end, "y: 'x' is a number, not a tensor")
    fails(function() safetensors.save(in_folder "y", { pg.zeros { 1 } }) end, "y: a tensor can't be named 1")
  end)

  it("survives mutations", function()
    math.randomseed(3)
    safetensors.save(in_folder "a.safetensors", example(), { step = "7" })
    local text = files.read(in_folder "a.safetensors")
    local read, length = 0, 8 + text:byte(1) + 256 * text:byte(2)
    for k = 1, 10000 do
      local changed = k % 4 == 0 and mutate(text) or mutate(text:sub(9, length))
      if k % 4 ~= 0 then changed = safetensors_file(changed, text:sub(length + 1)) end
      put(in_folder "b.safetensors", changed)
      local fine, result = pcall(safetensors.open, in_folder "b.safetensors")
      if fine then
        for _, name in ipairs(result.names) do
          local info = result:info(name)
          assert.is_true(info.offset >= 8 and info.offset + info.bytes <= #changed)
          if core.dtype_code[info.dtype] then result:read(name):free() end
        end
        read = read + 1
      else assert.is_truthy(result:find("b.safetensors: ", 1, true), result) end
    end
    assert.is_true(read > 100)
  end)
end)

describe("safetensors in several files", function()
  local weights_file = require "perigee.io.weights_file"

  local function index(map, extra)
    local parts = {}
    for name, file in pairs(map) do parts[#parts + 1] = ('"%s":"%s"'):format(name, file) end
    put(in_folder "model.safetensors.index.json",
      ('{"metadata":{"total_size":24},"weight_map":{%s}%s}'):format(table.concat(parts, ","), extra or ""))
    return in_folder "model.safetensors.index.json"
  end

  before_each(function()
    safetensors.save(in_folder "one.safetensors", { a = pg.tensor { 1, 2 }, b = pg.tensor({ 3 }, "bfloat16") })
    safetensors.save(in_folder "two.safetensors", { c = pg.tensor { 4 } })
  end)

  it("are read by their index", function()
    local file = weights_file.open(index { a = "one.safetensors", b = "one.safetensors", c = "two.safetensors" })
    assert.same({ "a", "b", "c" }, file.names)
    assert.same({ 1, 2 }, file:read("a"):totable())
    assert.equal("bfloat16", file:read("b").dtype)
    assert.same({ 4 }, file:read("c"):totable())
    fails(function() file:read "d" end, "index.json: it has no tensor 'd'")
  end)

  it("are refused where index and files differ", function()
    local function refused(map, ...)
      local path = index(map)
      fails(function() weights_file.open(path) end, path, ...)
    end
    refused({ a = "one.safetensors", c = "two.safetensors" }, "tensor 'b' of", "is not in the index")
    refused({ a = "one.safetensors", b = "one.safetensors", c = "one.safetensors" }, "tensor 'c' is not in")
    refused({ a = "three.safetensors" }, "three.safetensors is missing")
    refused({ a = "../one.safetensors" }, "it names the file '../one.safetensors'")
    refused({ a = "one.json" }, "it names the file 'one.json'")
    put(in_folder "list.json", '{"weight_map":["a"]}')
    fails(function() weights_file.open(in_folder "list.json") end, "it has no weight_map")
  end)
end)
