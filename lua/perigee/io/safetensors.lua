--- safetensors files (https://github.com/huggingface/safetensors): eight bytes with the header's length, a JSON header,
--- then the tensors' bytes, without overlap or hole. The header is not trusted.
---
--- A file may say the CRC-32 of each tensor's bytes, in its metadata: "perigee_crc32", a JSON object of eight
--- hexadecimal digits by name. They are checked where a tensor is read.
local core = require "perigee.core.ffi"
local elements = require "perigee.io.elements"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local layout = require "perigee.core.layout"
local recognise = require "perigee.io.recognise"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

local MAX_HEADER = 100 * 10 ^ 6 -- bytes, the format's own limit
local MAX_DIMS = 8
local SUMS = "perigee_crc32"

local format_of = { -- what the dtypes here are called
  float64 = "F64", float32 = "F32", bfloat16 = "BF16", int64 = "I64", int32 = "I32", uint8 = "U8",
}

---@class perigee.SafetensorsEntry
---@field dtype string       the dtype it is read as, or the format's name where it can't be
---@field stored string      the format's name: "F32", ...
---@field shape integer[]
---@field offset integer     of the first byte, in the file
---@field bytes integer

---@class perigee.SafetensorsFile
---@field path string
---@field names string[]     in the order of their bytes
---@field metadata table<string, string>
---@field entries table<string, perigee.SafetensorsEntry>
---@field sums? table<string, string>  CRC-32 of each tensor's bytes as the file says them
---@field verified? boolean  they have been checked
local File = {}
File.__index = File

-- ---- reading ----------------------------------------------------------------------------------------------------

local function is_count(x) return type(x) == "number" and x >= 0 and x % 1 == 0 and x <= 2 ^ 53 end

local function refuse(path, format, ...)
  core.fail("%s: not a valid safetensors file: %s", path, format:format(...))
end

--- A file that doesn't begin as a header does: what it is where that is known, else what is wrong.
local function refuse_beginning(path, format, ...)
  local known = recognise.sentence(path)
  if known == "it is a safetensors file" then known = nil end
  refuse(path, "%s", known or format:format(...))
end

--- The header's JSON and the offset of the data.
local function read_header(path)
  local size = files.size(path)
  if size < 8 then refuse_beginning(path, "it has %d bytes, the length of the header alone takes 8", size) end
  local length, unit = 0, 1
  for _, digit in ipairs { files.read(path, 0, 8):byte(1, 8) } do
    length, unit = length + digit * unit, unit * 256
  end
  if length > size - 8 then
    refuse_beginning(path, "the header is said to have %.0f bytes, the file has %d", length, size)
  elseif length > MAX_HEADER then
    refuse_beginning(path, "a header of %.0f bytes; the limit is %.0f", length, MAX_HEADER)
  end
  local text = files.read(path, 8, length)
  if text:byte() ~= 123 then refuse_beginning(path, "the header does not begin with '{'") end
  return json.decode(text, path), 8 + length, size
end

local function checked_shape(path, name, shape)
  if type(shape) ~= "table" or not json.is_array(shape) then
    refuse(path, "tensor '%s' has no list as its shape", name)
  end
  if #shape > MAX_DIMS then
    refuse(path, "tensor '%s' has %d dimensions; at most %d are possible", name, #shape, MAX_DIMS)
  end
  local numel = 1
  for d = 1, #shape do
    if not is_count(shape[d]) then refuse(path, "tensor '%s': dimension %d is %s", name, d, tostring(shape[d])) end
    numel = numel * shape[d]
    if numel > 2 ^ 50 then refuse(path, "tensor '%s' has an absurd shape [%s]", name, table.concat(shape, ",")) end
  end
  return numel
end

local function checked_entry(path, name, given, data, size)
  if type(given) ~= "table" then refuse(path, "tensor '%s' is described by a %s", name, type(given)) end
  for key in pairs(given) do
    if key ~= "dtype" and key ~= "shape" and key ~= "data_offsets" then
      refuse(path, "tensor '%s' has an unknown property '%s'", name, tostring(key))
    end
  end
  local format = elements.formats[given.dtype]
  if not format then refuse(path, "tensor '%s' has the unknown dtype '%s'", name, tostring(given.dtype)) end
  local numel = checked_shape(path, name, given.shape)
  local offsets = given.data_offsets
  if type(offsets) ~= "table" or #offsets ~= 2 or not is_count(offsets[1]) or not is_count(offsets[2]) then
    refuse(path, "tensor '%s' has no two data_offsets", name)
  end
  local from, to = offsets[1], offsets[2]
  if from > to or to > size - data then
    refuse(path, "tensor '%s' lies at bytes %.0f to %.0f of %.0f", name, from, to, size - data)
  end
  if to - from ~= numel * format.bytes then
    refuse(path, "tensor '%s' has %.0f bytes, its shape %s of %s needs %.0f", name, to - from,
      core.shape_text(given.shape), given.dtype, numel * format.bytes)
  end
  return { name = name, dtype = format.dtype or given.dtype, stored = given.dtype, bytes = to - from,
    offset = data + from, shape = { unpack(given.shape) } }
end

local function checked_metadata(path, metadata)
  if metadata == nil then return {} end
  if type(metadata) ~= "table" then refuse(path, "__metadata__ is a %s", type(metadata)) end
  for key, value in pairs(metadata) do
    if type(key) ~= "string" or type(value) ~= "string" then
      refuse(path, "__metadata__ holds texts only, but '%s' is a %s", tostring(key), type(value))
    end
  end
  return metadata
end

--- The tensors' sums, if the metadata hold some.
local function checked_sums(path, metadata, entries)
  if not metadata[SUMS] then return nil end
  local fine, sums = pcall(json.decode, metadata[SUMS])
  if not fine or type(sums) ~= "table" then refuse(path, "its metadata's %s is not a JSON object", SUMS) end
  for name in pairs(entries) do
    if type(sums[name]) ~= "string" then refuse(path, "its metadata's %s has no sum of tensor '%s'", SUMS, name) end
  end
  return sums
end

--- Entries sorted by place; they must cover the data from end to end.
local function checked_order(path, entries, data, size)
  local list = {}
  for _, entry in pairs(entries) do list[#list + 1] = entry end
  table.sort(list, function(a, b)
    if a.offset ~= b.offset then return a.offset < b.offset end
    if a.bytes ~= b.bytes then return a.bytes < b.bytes end
    return a.name < b.name
  end)
  local at, names = data, {}
  for k, entry in ipairs(list) do
    if entry.offset < at then refuse(path, "tensor '%s' overlaps '%s'", entry.name, list[k - 1].name) end
    if entry.offset > at then
      refuse(path, "%d bytes before tensor '%s' belong to none", entry.offset - at, entry.name)
    end
    at, names[k] = at + entry.bytes, entry.name
  end
  if at ~= size then refuse(path, "its last %d bytes belong to no tensor", size - at) end
  return names
end

--- Opens a file: names, shapes and dtypes are checked and known, no tensor is read.
---@return perigee.SafetensorsFile
function M.open(path)
  local header, data, size = read_header(path)
  local metadata = checked_metadata(path, header.__metadata__)
  header.__metadata__ = nil
  local entries = {}
  for name, given in pairs(header) do entries[name] = checked_entry(path, name, given, data, size) end
  local names = checked_order(path, entries, data, size)
  return setmetatable({ path = path, metadata = metadata, entries = entries, names = names,
    sums = checked_sums(path, metadata, entries) }, File)
end

local function hexadecimal(sum) return ("%08x"):format(sum) end

local function expect_sum(file, name, found)
  if found == file.sums[name] then return end
  core.fail("%s: tensor '%s' is damaged: its bytes have the CRC-32 %s; expected %s", file.path, name, found,
    file.sums[name])
end

--- CRC-32 of a tensor's bytes, as eight digits: what the file says, or else what is there.
---@return string
function File:sum(name)
  local entry = self:info(name)
  return self.sums and self.sums[name] or hexadecimal(files.crc32(self.path, entry.offset, entry.bytes))
end

--- Checks all tensors against the sums that the file says, without keeping them; later reads needn't.
function File:verify()
  for _, name in ipairs(self.sums and self.names or {}) do
    local entry = self.entries[name]
    expect_sum(self, name, hexadecimal(files.crc32(self.path, entry.offset, entry.bytes)))
  end
  self.verified = true
end

---@return perigee.SafetensorsEntry
function File:info(name)
  local entry = self.entries[name]
  if not entry then core.fail("%s: it has no tensor '%s'", self.path, name) end
  return entry
end

--- Reads one tensor, into a given contiguous tensor of its shape and dtype if there is one.
---@param name string
---@param into? perigee.Tensor
---@return perigee.Tensor
function File:read(name, into)
  local entry = self:info(name)
  local summed = self.sums ~= nil and not self.verified
  local t, sum = elements.read_entry(self, name, entry, into, summed)
  if summed then expect_sum(self, name, hexadecimal(sum)) end
  return t
end

--- All tensors of a file, by name, and its metadata.
---@return table<string, perigee.Tensor> tensors
---@return table<string, string> metadata
function M.load(path)
  local file, tensors = M.open(path), {}
  for _, name in ipairs(file.names) do tensors[name] = file:read(name) end
  return tensors, file.metadata
end

-- ---- writing ----------------------------------------------------------------------------------------------------

--- Names by falling element size, then by name, so that every tensor begins at a multiple of its element size.
local function sorted_names(path, tensors)
  local names = {}
  for name, t in pairs(tensors) do
    if type(name) ~= "string" or name == "__metadata__" then
      core.fail("%s: a tensor can't be named %s", path, tostring(name))
    end
    if not tensor.is_tensor(t) then core.fail("%s: '%s' is a %s, not a tensor", path, name, type(t)) end
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    local of_a, of_b = core.dtype_bytes[tensors[a].dtype], core.dtype_bytes[tensors[b].dtype]
    if of_a ~= of_b then return of_a > of_b end
    return a < b
  end)
  return names
end

local function header_text(path, tensors, names, metadata)
  local parts, at = {}, 0
  if metadata and next(metadata) then
    parts[1] = '"__metadata__":' .. json.encode(checked_metadata(path, metadata))
  end
  for _, name in ipairs(names) do
    local t = tensors[name]
    local bytes = layout.numel(t.shape) * core.dtype_bytes[t.dtype]
    parts[#parts + 1] = ('%s:{"dtype":"%s","shape":%s,"data_offsets":[%.0f,%.0f]}'):format(json.encode(name),
      format_of[t.dtype], json.encode(json.array { unpack(t.shape) }), at, at + bytes)
    at = at + bytes
  end
  local text = "{" .. table.concat(parts, ",") .. "}"
  return text .. (" "):rep(-#text % 8)
end

local function length_bytes(length)
  local digits = {}
  for k = 1, 8 do
    digits[k] = string.char(length % 256)
    length = math.floor(length / 256)
  end
  return table.concat(digits)
end

--- Writes tensors, from any device, and texts about them; equal contents make equal files. The file appears whole or
--- not at all.
---@param path string
---@param tensors table<string, perigee.Tensor>
---@param metadata? table<string, string>
---@param options? { sums?: boolean }  with the CRC-32 of each tensor
function M.save(path, tensors, metadata, options)
  local names, sums = sorted_names(path, tensors), options and options.sums and {} or nil
  for _, name in ipairs(sums and names or {}) do sums[name] = hexadecimal(0) end
  local function header() -- as long before as after the sums are known
    local told = sums and tables.merged(metadata or {}, { [SUMS] = json.encode(sums) }) or metadata
    return header_text(path, tensors, names, told)
  end
  local text = header()
  if #text > MAX_HEADER then core.fail("%s: a header of %d bytes; the limit is %.0f", path, #text, MAX_HEADER) end
  files.with_writer(path, function(w)
    w:write(length_bytes(#text)):write(text)
    for _, name in ipairs(names) do
      local sum = w:write_tensor(tensors[name], sums ~= nil)
      if sums then sums[name] = hexadecimal(sum) end
    end
    if sums then w:write_at(8, header()) end
  end)
end

return M
