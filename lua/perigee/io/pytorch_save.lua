--- Writes PyTorch's files (.pt), which torch.load(..., weights_only=True) reads: a zip archive of a pickle and the
--- tensors' bytes, as torch.save makes them.
local bytes_of = require "perigee.base.bytes"
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local layout = require "perigee.core.layout"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"
local zip = require "perigee.io.zip"

local M, little = {}, bytes_of.little

local storage_of = {
  float64 = "DoubleStorage", float32 = "FloatStorage", bfloat16 = "BFloat16Storage", int64 = "LongStorage",
  int32 = "IntStorage", uint8 = "ByteStorage",
}

local function text(s) return "X" .. little(#s, 4) .. s end

local function number(x)
  if x % 1 == 0 and x >= 0 and x < 2 ^ 31 then return "J" .. little(x, 4) end
  if x % 1 == 0 and x >= 0 and x <= 2 ^ 53 then return "\138\8" .. little(x, 8) end
  return "G" .. ffi.string(ffi.new("double[1]", x), 8):reverse()
end

local function global(module, name) return ("c%s\n%s\n"):format(module, name) end

local function sizes(list)
  local parts = {}
  for k, n in ipairs(list) do parts[k] = number(n) end
  return "(" .. table.concat(parts) .. "t"
end

--- A tensor over storage `key` of its own.
local function pickled_tensor(t, key)
  local storage = "(" .. text "storage" .. global("torch", storage_of[t.dtype]) .. text(key) .. text "cpu"
    .. number(layout.numel(t.shape)) .. "tQ"
  return global("torch._utils", "_rebuild_tensor_v2") .. "(" .. storage .. number(0) .. sizes(t.shape)
    .. sizes(layout.packed(t.shape)) .. "\137" .. global("collections", "OrderedDict") .. ")Rt" .. "R"
end

--- A value's pickle; tensors are added to `list`.
local function pickled(path, value, list)
  if tensor.is_tensor(value) then
    list[#list + 1] = value
    return pickled_tensor(value, tostring(#list - 1))
  end
  local kind = type(value)
  if kind == "string" then return text(value)
  elseif kind == "number" then return number(value)
  elseif kind == "boolean" then return value and "\136" or "\137"
  elseif kind ~= "table" then core.fail("%s: a %s can't be written", path, kind) end
  local parts = {}
  for _, key in ipairs(tables.sorted_keys(value)) do
    if type(key) ~= "string" then core.fail("%s: the key %s is not a text", path, tostring(key)) end
    parts[#parts + 1] = text(key) .. pickled(path, value[key], list)
  end
  return "}(" .. table.concat(parts) .. "u"
end

--- Writes tables of tensors, numbers, texts and switches by name, nested as they are. The file appears whole or not at
--- all; equal contents make equal files.
---@param path string
---@param value table
function M.save(path, value)
  local list = {}
  local pickle = "\128\2" .. pickled(path, value, list) .. "."
  zip.save(path, function(archive)
    archive:add_text("archive/data.pkl", pickle)
    archive:add_text("archive/byteorder", "little")
    for k, t in ipairs(list) do archive:add_tensor(("archive/data/%d"):format(k - 1), t) end
    archive:add_text("archive/version", "3\n")
  end)
end

return M
