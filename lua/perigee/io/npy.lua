--- .npy files (NumPy's format, versions 1 to 3): a header, which is a Python dictionary as text, then the elements.
--- Known are float32, float64, int32, int64 and uint8, little-endian, in C order. The header is not trusted.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local recognise = require "perigee.io.recognise"
local tensor = require "perigee.core.tensor"

local M = {}

local MAX_HEADER = 2 ^ 20
local MAGIC = "\147NUMPY"

local dtype_of = {
  ["<f4"] = "float32", ["<f8"] = "float64", ["<i4"] = "int32", ["<i8"] = "int64", ["|u1"] = "uint8", ["<u1"] = "uint8",
}
local descr_of = { float32 = "<f4", float64 = "<f8", int32 = "<i4", int64 = "<i8", uint8 = "|u1" }

---@class perigee.NpyHeader
---@field path string
---@field dtype string
---@field shape integer[]
---@field offset integer  of the first element, in bytes

local function refuse(path, format, ...)
  core.fail("%s: not a .npy file that can be read: %s", path, format:format(...))
end

-- ---- the header -------------------------------------------------------------------------------------------------

--- A tuple of sizes, "(3, 4)", "(3,)" or "()", from `position`; the position after it.
local function read_shape(path, text, position)
  local inside, after = text:match("^%(([%d,%sL]*)%)()", position)
  if not inside then refuse(path, "its shape is not a tuple of sizes") end
  local shape, rest = {}, inside:match "^%s*(.*)$"
  while rest ~= "" do
    local digits, tail = rest:match "^(%d+)L?%s*,%s*(.*)$"
    if not digits then digits, tail = rest:match "^(%d+)L?%s*$", "" end
    if not digits then refuse(path, "its shape is (%s)", inside) end
    shape[#shape + 1], rest = tonumber(digits), tail
  end
  return shape, after
end

--- {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
local function read_dictionary(path, text)
  local found, position = {}, text:match "^%s*{%s*()"
  while position do
    local after = text:match("^}%s*()", position)
    if after then
      if after <= #text then refuse(path, "something follows the header's dictionary") end
      return found
    end
    local _, key, value = text:match("^(['\"])([%w_]+)%1%s*:%s*()", position)
    if not key or found[key] ~= nil then refuse(path, "the header's dictionary is malformed") end
    if key == "shape" then found.shape, position = read_shape(path, text, value)
    elseif key == "descr" then _, found.descr, position = text:match("^(['\"])([^'\"]*)%1()", value)
    elseif key == "fortran_order" then found.fortran_order, position = text:match("^([TF]%a+)()", value)
    else refuse(path, "the header has an unknown entry '%s'", key) end
    position = position and (text:match("^%s*,%s*()", position) or text:match("^%s*()}", position))
  end
  refuse(path, "the header is not a dictionary of descr, fortran_order and shape")
end

--- The header's text, the offset of the data and the size, both from the array's beginning.
local function read_text(path, at, size)
  if size < 10 or files.read(path, at, 6) ~= MAGIC then
    refuse(path, "%s", recognise.sentence(path) or "it does not begin with \\x93NUMPY")
  end
  local version, _, b1, b2, b3, b4 = files.read(path, at + 6, math.min(6, size - 6)):byte(1, 6)
  if version < 1 or version > 3 then refuse(path, "format version %d; 1 to 3 are known", version) end
  local length, start = b1 + 256 * b2, 10
  if version > 1 then length, start = length + 65536 * (b3 or 0) + 16777216 * (b4 or 0), 12 end
  if length > MAX_HEADER or start + length > size then
    refuse(path, "a header of %.0f bytes, in a file of %.0f", length, size)
  end
  return files.read(path, at + start, length), start + length, size
end

--- A file's shape and dtype, without reading its data; or those of a part of it, `size` bytes from `at`.
---@param path string
---@param at? integer
---@param size? integer
---@return perigee.NpyHeader
function M.header(path, at, size)
  at = at or 0
  local text, offset, whole = read_text(path, at, size or files.size(path))
  local found = read_dictionary(path, text)
  for _, key in ipairs { "descr", "fortran_order", "shape" } do
    if found[key] == nil then refuse(path, "the header has no '%s'", key) end
  end
  local dtype = dtype_of[found.descr]
  if not dtype then
    refuse(path, "its dtype is '%s'; <f4, <f8, <i4, <i8 and |u1 are possible", found.descr)
  end
  if found.fortran_order ~= "False" then refuse(path, "it is stored in Fortran order") end
  if #found.shape > 8 then refuse(path, "it has %d dimensions; at most 8 are possible", #found.shape) end
  local bytes = core.dtype_bytes[dtype]
  for _, n in ipairs(found.shape) do bytes = bytes * n end
  if bytes ~= whole - offset then
    refuse(path, "its shape %s of %s needs %.0f bytes, the file has %.0f for it", core.shape_text(found.shape), dtype,
      bytes, whole - offset)
  end
  return { path = path, dtype = dtype, shape = found.shape, offset = at + offset }
end

--- The header that M.save writes before elements of this dtype and shape: a multiple of 64 bytes, or `bytes` if given.
---@return string
function M.header_text(dtype, shape, bytes)
  local sizes = {}
  for d, n in ipairs(shape) do sizes[d] = ("%.0f"):format(n) end
  local tuple = table.concat(sizes, ", ") .. (#shape == 1 and "," or "")
  local text = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"):format(descr_of[dtype], tuple)
  local total = bytes or math.ceil((10 + #text + 1) / 64) * 64
  local length = total - 10
  text = text .. (" "):rep(length - #text - 1) .. "\n"
  return MAGIC .. string.char(1, 0, length % 256, math.floor(length / 256)) .. text
end

-- ---- files ------------------------------------------------------------------------------------------------------

--- Reads a file's rows first ... first + count − 1 (first dimension, from 1); default: all.
---@param path string
---@param first? integer
---@param count? integer
---@param place? { device?: string, purpose?: string }
---@return perigee.Tensor
function M.load(path, first, count, place)
  local header = M.header(path)
  if not first then return files.read_tensor(path, header.offset, tensor.empty(header.shape, header.dtype, place)) end
  local rows = header.shape[1] or 0
  count = count or rows - first + 1
  if first < 1 or count < 0 or first + count - 1 > rows then
    core.fail("%s: rows %d to %d are wanted, it has %d", path, first, first + count - 1, rows)
  end
  local shape = { count, unpack(header.shape, 2) }
  local row_bytes = layout.numel({ unpack(header.shape, 2) }) * core.dtype_bytes[header.dtype]
  return files.read_tensor(path, header.offset + (first - 1) * row_bytes, tensor.empty(shape, header.dtype, place))
end

--- Writes a tensor from any device; the file appears whole or not at all.
---@param path string
---@param t perigee.Tensor
function M.save(path, t)
  if not descr_of[t.dtype] then core.fail("%s: NumPy has no %s; convert it with :to \"float32\"", path, t.dtype) end
  files.with_writer(path, function(w)
    w:write(M.header_text(t.dtype, t.shape)):write_tensor(t)
  end)
end

--- The bytes that all files of a kind begin with, from one of them: float32 arrays of one shape, or an error.
---@param path string
---@param shape integer[]
---@return string
function M.shared_header(path, shape)
  local header = M.header(path)
  if header.dtype ~= "float32" or not layout.same_shape(header.shape, shape) then
    core.fail("%s: %s %s; expected float32 %s", path, header.dtype, core.shape_text(header.shape),
      core.shape_text(shape))
  end
  return files.read(path, 0, header.offset)
end

return M
