-- PyTorch's files: what PyTorch wrote (tests/oracle/build_pytorch.py), and what nobody should have written.
local by_hand = require "tests.lua.archives"
local core = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local pickle = require "perigee.io.pickle"
local pytorch = require "perigee.io.pytorch"
local zip = require "perigee.io.zip"

local fails = expect.fails
local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function fixture(name) return core.home .. "/tests/oracle/fixtures/pytorch/" .. name end

local function put(name, text)
  local file = assert(io.open(in_folder(name), "wb"))
  file:write(text)
  file:close()
  return in_folder(name)
end

local little, archive = by_hand.little, by_hand.zip

-- ---- pickles by hand ----------------------------------------------------------------------------------------------

local function text(s) return "X" .. little(#s, 4) .. s end
local function whole(n) return n < 256 and "K" .. string.char(n) or "\138\8" .. little(n, 8) end
local function tuple(...) return "(" .. table.concat { ... } .. "t" end
local function global(module, name) return "c" .. module .. "\n" .. name .. "\n" end
local function pickled(s) return "\128\2" .. s .. "." end

--- A tensor over a storage "0" of `count` floats.
local function tensor(o)
  local storage = tuple(text "storage", global("torch", o.type or "FloatStorage"), text(o.key or "0"), text "cpu",
    whole(o.count or 6)) .. "Q"
  return global("torch._utils", "_rebuild_tensor_v2")
    .. tuple(storage, whole(o.first or 0), o.shape or tuple(whole(2), whole(3)), o.strides or tuple(whole(3), whole(1)),
      "\137", global("collections", "OrderedDict") .. ")R") .. "R"
end

local DATA = ("\0\0\128\63"):rep(6) -- six ones

local function file_of(value, list)
  local entries = { { "a/data.pkl", pickled(value) } }
  for _, entry in ipairs(list or { { "a/data/0", DATA } }) do entries[#entries + 1] = entry end
  return put("x.pt", archive(entries))
end

local function refuses(path, ...) fails(function() pytorch.load(path) end, path, ...) end

describe("a file that PyTorch wrote", function()
  it("gives tensors of every dtype", function()
    local became = { float16 = "float32", float8_e4m3fn = "float32", float8_e5m2 = "float32",
      float8_e4m3fnuz = "float32", float8_e5m2fnuz = "float32", int8 = "int32", int16 = "int32", uint16 = "int32",
      uint32 = "int64", uint64 = "int64", bool = "uint8" }
    local tensors = pytorch.load(fixture "dtypes.pt")
    local count = 0
    for name, t in pairs(tensors) do
      local values = { { -2, -1, 0 }, { 1, 2, 3 } }
      if name:sub(1, 4) == "uint" then values = { { 0, 1, 2 }, { 3, 4, 5 } } end
      if name == "bool" then values = { { 1, 0, 1 }, { 0, 0, 1 } } end
      assert.equal(became[name] or name, t.dtype)
      assert.same(values, t:totable(), name)
      count = count + 1
    end
    assert.equal(17, count)
    refuses(fixture "complex.pt", "tensor 'x' is C64, which can't be read")
  end)

  it("gives views, shared storages and parameters, in the older form too", function()
    for _, name in ipairs { "views.pt", "legacy.pth" } do
      local file = pytorch.open(fixture(name))
      local function read(key) return file:read(key):totable() end
      assert.equal("base transposed corner every_second row scalar empty expanded parameter",
        table.concat(file.names, " "))
      assert.same({ { 8, 9, 10 }, { 14, 15, 16 } }, read "corner")
      assert.same({ { 0, 2, 4 }, { 6, 8, 10 }, { 12, 14, 16 }, { 18, 20, 22 } }, read "every_second")
      assert.same({ 1, 7, 13, 19 }, read "transposed"[2])
      assert.same({ 18, 19, 20, 21, 22, 23 }, read "row")
      assert.equal(13, read "scalar")
      assert.same({ 0, 6 }, file:read("empty").shape)
      assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, read "expanded")
      assert.same({ 1, 1 }, read "parameter")
    end
    assert.equal(1, pytorch.open(fixture "legacy.pth").value:get("args"):get "a")
  end)

  it("gives what a training script keeps beside its weights", function()
    local file = pytorch.open(fixture "checkpoint.pt")
    assert.same({ { 2, 2, 2 }, { 2, 2, 2 } }, file:read("ema.blocks.0.weight"):totable())
    assert.same({ 0, 0 }, file:read("model.blocks.0.bias"):totable())
    assert.near(0.1, file:read("opt.state.0.exp_avg"):totable()[1], 1e-7)
    local args = file.value:get "args"
    assert.equal("argparse.Namespace", args.class)
    assert.equal("SiT-XL/2", args:get "model")
    assert.equal(1.5, args:get "cfg_scale")
    assert.equal(pickle.none, args:get "resume")
    assert.equal(2 ^ 40, args:get "big")
    assert.equal(-7, args:get "negative")
    assert.equal("é", args:get "text")
    assert.equal("b", args:get "enc"[2])
    assert.equal(400000, file.value:get "steps")
    assert.equal("torch.bfloat16", tostring(file.value:get "dtype"))
    assert.same({ 2, 3, n = 2, class = "tuple" }, file.value:get "size")
  end)

  it("gives the parameters of TorchScript", function()
    local file = pytorch.open(fixture "torchscript.pt")
    assert.equal("torchscript", file.kind)
    assert.same({ "scale", "steps", "inner.weight", "inner.bias" }, file.names)
    assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, file:read("inner.weight"):totable())
    assert.same({ 0.5, 0.5 }, file:read("inner.bias"):totable())
  end)

  it("names the Python object of a whole module", function()
    refuses(fixture "module.pt", "torch.nn.modules.linear.Linear, which is not read", "save model.state_dict()")
  end)

  it("that is cut anywhere is refused with its name", function()
    for _, name in ipairs { "checkpoint.pt", "legacy.pth", "torchscript.pt" } do
      local whole_text = files.read(fixture(name))
      for bytes = 0, #whole_text - 1, 61 do refuses(put("cut.pt", whole_text:sub(1, bytes)), "cut.pt: ") end
    end
  end)

  it("survives changed bytes", function()
    math.randomseed(5)
    for _, name in ipairs { "checkpoint.pt", "views.pt", "legacy.pth", "torchscript.pt" } do
      local original = files.read(fixture(name))
      for _ = 1, 200 do
        local at = math.random(#original)
        local changed = original:sub(1, at - 1) .. string.char(math.random(0, 255)) .. original:sub(at + 1)
        local path = put("changed.pt", changed)
        local fine, message = pcall(pytorch.load, path)
        assert.is_truthy(fine or message:find("changed.pt: ", 1, true), message)
      end
    end
  end)
end)

describe("a hostile pickle", function()
  it("is one that reads well when nothing is wrong with it", function()
    local tensors = pytorch.load(file_of("}" .. text "x" .. tensor {} .. "s"))
    assert.same({ { 1, 1, 1 }, { 1, 1, 1 } }, tensors.x:totable())
  end)

  it("runs nothing: other globals are refused by name", function()
    for _, name in ipairs { "os system", "posix system", "builtins eval", "__builtin__ getattr", "torch.load load",
      "torch.storage _load_from_bytes", "numpy.core.multiarray scalar", "__torch__.a B" } do
      local module, member = name:match "^(%S+) (%S+)$"
      refuses(file_of(global(module, member) .. tuple(text "touch /tmp/x") .. "R"), module .. "." .. member)
      refuses(file_of("\140" .. string.char(#module) .. module .. "\140" .. string.char(#member) .. member .. "\147)R"),
        module .. "." .. member)
    end
    refuses(file_of(text "os.system" .. tuple(text "true") .. "R"), "a call of a value that is not a class")
    refuses(file_of "(ios\nsystem\n", "the instruction 0x69, which is not read")
  end)

  it("may be deep or hold itself, and ends", function()
    refuses(file_of(("]"):rep(1000000) .. ("a"):rep(999999)), "more than 100000 values wait")
    refuses(file_of(("("):rep(1000000)), "more than 100000 marks")
    refuses(file_of(("]"):rep(1000) .. ("a"):rep(999)), "nested more than 64 deep, or in themselves")
    refuses(file_of "]q\0h\0a", "nested more than 64 deep, or in themselves")
    refuses(file_of("}q\0" .. text "x" .. "h\0s"), "nested more than 64 deep, or in themselves")
    local laughs = "]q\0" -- a list that holds itself twice, 40 times
    for k = 1, 40 do
      local inner = "h" .. string.char(k - 1)
      laughs = laughs .. "0](" .. inner .. inner .. "eq" .. string.char(k)
    end
    refuses(file_of(laughs), "more than 100000 tensors, dicts and lists")
  end)

  it("gives no attributes of an OrderedDict, and those of a Namespace", function()
    local state = "}" .. text "_metadata" .. "K\7sb"
    local _, value = pytorch.load(file_of(global("collections", "OrderedDict") .. ")R" .. state))
    assert.same({}, value.keys)
    _, value = pytorch.load(file_of(global("argparse", "Namespace") .. ")\129" .. state))
    assert.equal(7, value:get "_metadata")
  end)

  it("that says wrong sizes is refused", function()
    local function of(o, ...) refuses(file_of(tensor(o)), ...) end
    of({ count = 2 ^ 52 }, "storage '0' has 24 bytes in the archive, 18014398509481984 in the pickle")
    of({ count = 2 ^ 60 }, "a storage without type, key and size")
    of({ count = 7 }, "storage '0' has 24 bytes in the archive, 28 in the pickle")
    of({ count = 5 }, "reaches to byte 24 of a storage of 20")
    of({ first = 1 }, "reaches to byte 28 of a storage of 24")
    of({ strides = tuple(whole(300), whole(1)) }, "reaches to byte 1212 of a storage of 24")
    of({ strides = tuple(whole(1)) }, "a tensor without an offset, sizes and strides")
    of({ shape = tuple("J\255\255\255\255", whole(3)) }, "a tensor's size or stride is -1")
    of({ shape = tuple(whole(2 ^ 31), whole(2 ^ 31)) }, "absurd shape")
    of({ shape = tuple(whole(2 ^ 20), whole(2 ^ 20)), strides = tuple(whole(0), whole(0)) },
      "repeats elements and is larger")
    of({ shape = tuple(("K\1"):rep(9)), strides = tuple(("K\1"):rep(9)) }, "no list of at most 8")
    of({ type = "HalfStorage" }, "has 24 bytes in the archive, 12 in the pickle")
    of({ type = "QInt8Storage" }, "torch.QInt8Storage")
    of({ key = "../../etc/passwd" }, "it has no entry 'a/data/../../etc/passwd'")
    local other = tensor { count = 3, shape = tuple(whole(3)), strides = tuple(whole(1)) }
    refuses(file_of("(" .. tensor {} .. other .. "l"), "storage '0' has two sizes")
  end)

  it("that is malformed is refused", function()
    for _, case in ipairs {
      { "a", "finds no value" }, { "]a", "finds no value" }, { "t", "no mark" }, { "h\5", "value 5 of its memo" },
      { "X\255\255\255\255a", "ends within an instruction" }, { "NNs", "finds no value" },
      { "}]Ns", "neither text, number nor" }, { "}(NNu", "neither text, number nor" }, { "}(K\1u", "no value" },
      { "NN", "left over" }, { "NQ", "not a storage" }, { "\128\0N", "protocol 0" },
      { "NNb", "a state for a value that is not an object" }, { "cos", "a line does not end" }, { "P1\n", "0x50" },
    } do
      refuses(file_of(case[1]), case[2])
    end
    refuses(put("x.pt", "\128\4N."), "a pickle that torch.save did not write")
  end)
end)

describe("a hostile archive", function()
  local value = "}" .. text "x" .. tensor {} .. "s"
  local function of(list, changes, ...)
    local why = ...
    local path = put("x.pt", archive(list, changes))
    assert.is_false(pcall(pytorch.load, path), why)
    refuses(path, why)
  end
  local main, data = { "a/data.pkl", pickled(value) }, { "a/data/0", DATA }

  it("is refused with its name and the reason", function()
    of({ main, data, data }, nil, "'a/data/0' comes twice")
    of({ main, data, { "../x", "" } }, nil, "an entry is named '../x'")
    of({ main, data, { "a/../../x", "" } }, nil, "an entry is named 'a/../../x'")
    of({ main, data, { "/etc/x", "" } }, nil, "an entry is named '/etc/x'")
    of({ main, { data[1], DATA, { flags = 1 } } }, nil, "'a/data/0' is encrypted")
    of({ main, { data[1], DATA, { method = 8, bytes = 200 } } }, nil, "its entry 'a/data/0' is compressed")
    of({ main, { data[1], DATA, { bytes = 2 ^ 31 } } }, nil, "'a/data/0' has two sizes")
    of({ main, { data[1], DATA, { bytes = 2 ^ 31, packed = 2 ^ 31 } } }, nil, "'a/data/0' lies outside the file")
    of({ main, { data[1], DATA, { at = 2 ^ 31 } } }, nil, "'a/data/0' lies outside the file")
    of({ main, { data[1], DATA, { at = 0 } } }, nil, "overlaps the next entry")
    local after = 60 + #main[1] + #main[2] + #data[1] + #data[2]
    local unread = { "a/x", "", { method = 8 } }
    of({ main, data, unread, { "a/y", "", { at = after, method = 8 } } }, nil, "overlaps the next entry")
    of({ main, { data[1], DATA, { own_name = "a/data/1" } } }, nil, "'a/data/0' is another entry at its place")
    of({ main, data }, { count = 3 }, "2 entries, its directory announces 3")
    of({ main, data }, { bytes = 2 ^ 31 }, "a directory of 2147483648 bytes")
    of({ main, data }, { bytes = 2 ^ 20 }, "its directory lies outside the file")
    of({ main, data }, { at = 2 ^ 31 }, "its directory lies outside the file")
    of({ main, data }, { at = 1 }, "its directory is damaged")
    of({ main, data, { "b/data.pkl", "" } }, nil, "two data.pkl")
    of({ data }, nil, "a zip archive without data.pkl")
    of({ main, data, { "a/byteorder", "big" } }, nil, "its numbers are big-endian")
    of({ main }, nil, "it has no entry 'a/data/0'")
    refuses(put("x.pt", "PK\3\4" .. ("x"):rep(100)), "its directory is missing")
  end)

  it("of another kind of zip still says where its entries lie", function()
    local z = zip.open(put("x.zip", archive { { "one", "first" }, { "two", "second", { method = 8 } } }))
    assert.same({ "one", "two" }, z.names)
    assert.equal("first", z:read "one")
    fails(function() z:read("one", 4) end, "its entry 'one' has 5 bytes; at most 4 are read")
    fails(function() z:read "two" end, "two: its packed bytes are damaged")
    local other = zip.open(put("y.zip", archive { { "one", "first", { method = 12 } } }))
    fails(function() other:read "one" end, "its entry 'one' is compressed by method 12; stored and deflated ones are")
  end)
end)
