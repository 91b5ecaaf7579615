--- .npz files: zip archives of .npy files. Those of samples are written as the ADM evaluator reads them, with one
--- stored entry, arr_0.npy, which is uint8 [N,H,W,C]; latents are float32 [N,C,H,W]. Arrays of others are found and
--- read where they lie.
---
--- The samples are appended to PATH.part, which already begins with the archive's and the array's headers, their sizes
--- still zero. A run that stops anywhere, killed or not, continues where it was: the whole records in PATH.part are
--- counted, half a record is cut off. finish() fills in sizes and checksum, appends the directory and renames the file.
--- Nothing is copied: the disk holds the samples once, memory none. Always zip64 (APPNOTE 6.3, section 4.3).
local bytes_of = require "perigee.base.bytes"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local nearest = require "perigee.base.nearest"
local npy = require "perigee.io.npy"
local tensor = require "perigee.core.tensor"
local zip = require "perigee.io.zip"

local M, little = {}, bytes_of.little

local NAME = "arr_0.npy"
local NPY_HEADER = 128
local LOCAL_HEADER = 30 + #NAME + 20

local MANY = ("\255"):rep(4) -- "see the zip64 field"
local VERSION, STORED, DATE = little(45, 2), little(0, 2), little(0, 2) .. little(33, 2) -- 1 January 1980, midnight

local function local_header(crc, bytes)
  return "PK\3\4" .. VERSION .. little(0, 2) .. STORED .. DATE .. little(crc, 4) .. MANY .. MANY .. little(#NAME, 2)
    .. little(20, 2) .. NAME .. little(1, 2) .. little(16, 2) .. little(bytes, 8) .. little(bytes, 8)
end

--- The central directory: the entry, the zip64 end record, its locator, the end record.
local function directory(crc, bytes)
  local at = LOCAL_HEADER + bytes
  local entry = "PK\1\2" .. VERSION .. VERSION .. little(0, 2) .. STORED .. DATE .. little(crc, 4) .. MANY .. MANY
    .. little(#NAME, 2) .. little(20, 2) .. little(0, 2 + 2 + 2 + 4 + 4) .. NAME .. little(1, 2) .. little(16, 2)
    .. little(bytes, 8) .. little(bytes, 8)
  local zip64 = "PK\6\6" .. little(44, 8) .. VERSION .. VERSION .. little(0, 8) .. little(1, 8) .. little(1, 8)
    .. little(#entry, 8) .. little(at, 8)
  local locator = "PK\6\7" .. little(0, 4) .. little(at + #entry, 8) .. little(1, 4)
  local last = "PK\5\6" .. little(0, 4) .. little(1, 2) .. little(1, 2) .. little(#entry, 4) .. MANY .. little(0, 2)
  return entry .. zip64 .. locator .. last
end

-- ---- reading ----------------------------------------------------------------------------------------------------

--- The names of an archive's arrays, in its order.
---@return string[]
function M.names(path)
  local names = {}
  for k, entry in ipairs(zip.open(path).names) do names[k] = entry:gsub("%.npy$", "") end
  return names
end

--- The shape and dtype of the array of a name, without reading it: as of a .npy file, its offset in the archive. An
--- archive with one array gives that one. Arrays are stored, as numpy.savez does.
---@param path string
---@param name string
---@return perigee.NpyHeader
---@return integer crc  CRC-32 of the entry, as the archive says it
function M.header(path, name)
  local archive = zip.open(path)
  local entry = archive.entries[name .. ".npy"] and name .. ".npy" or #archive.names == 1 and archive.names[1]
  if not entry then
    local names = {}
    for k, other in ipairs(archive.names) do names[k] = other:gsub("%.npy$", "") end
    core.fail("%s: it has no array '%s'; it has %s%s", path, name, table.concat(names, ", "),
      nearest.hint(name, names))
  end
  if not archive.entries[entry].stored then
    core.fail("%s: '%s' is compressed; write it with numpy.savez", path, entry)
  end
  return npy.header(path, archive:place(entry)), archive.entries[entry].crc
end

--- Reads the array of a name.
---@return perigee.Tensor
function M.load(path, name)
  local header = M.header(path, name)
  return files.read_tensor(path, header.offset, tensor.empty(header.shape, header.dtype))
end

-- ---- writing ----------------------------------------------------------------------------------------------------

--- Writes an archive of arrays, which numpy.load reads: body(add) calls add(name, dtype, shape, pieces) for each, where
--- pieces(append) calls append(t) for tensors that together are the array, row after row. The file appears whole or not
--- at all.
---@param path string
---@param body fun(add: fun(name: string, dtype: string, shape: integer[], pieces: fun(append: fun(t: perigee.Tensor))))
function M.save(path, body)
  zip.save(path, function(archive)
    body(function(name, dtype, shape, pieces)
      local text, bytes = npy.header_text(dtype, shape), layout.numel(shape) * core.dtype_bytes[dtype]
      archive:add(name .. ".npy", #text + bytes, function(w)
        local begins = w:bytes()
        w:write(text)
        pieces(function(t) w:write_tensor(t) end)
        if w:bytes() ~= begins + #text + bytes then
          core.fail("%s: array '%s' has %.0f bytes; expected %.0f", path, name, w:bytes() - begins - #text, bytes)
        end
        return w:crc32(begins, #text + bytes)
      end)
    end)
  end)
end

---@class perigee.NpzWriter
---@field count integer  samples written so far
local Npz = {}
Npz.__index = Npz

--- The array's header for so many samples.
local function header(self, count) return npy.header_text(self.dtype, { count, unpack(self.shape) }, NPY_HEADER) end

local function headers(self) return local_header(0, 0) .. header(self, 0) end

local HEADERS = LOCAL_HEADER + NPY_HEADER

--- How many whole samples a part holds; an error where it holds something else.
local function count_samples(self, bytes)
  if bytes < HEADERS then return 0 end
  local count = tonumber(self.writer:read_at(LOCAL_HEADER, NPY_HEADER):match "'shape': %((%d+),")
  if not count or self.writer:read_at(LOCAL_HEADER, NPY_HEADER) ~= header(self, count) then
    core.fail("%s.part: it holds no samples %s %s; remove it to start again", self.path, self.dtype,
      core.shape_text(self.shape))
  end
  local whole = math.floor((bytes - HEADERS) / self.record)
  return count > 0 and math.min(count, whole) or whole -- a count is filled in by a finish() that was cut off
end

--- Opens PATH.part, new or begun by an earlier writer; `shape` is one sample's, { height, width, channels }.
---@param path string
---@param shape integer[]
---@param dtype? string  uint8
---@return perigee.NpzWriter
function M.writer(path, shape, dtype)
  dtype = dtype or "uint8"
  local writer = files.resume(path)
  local record = layout.numel(shape) * core.dtype_bytes[dtype]
  local self = setmetatable({ path = path, shape = shape, dtype = dtype, record = record, writer = writer }, Npz)
  self.count = count_samples(self, writer:bytes())
  if self.count == 0 then
    writer:truncate(0)
    writer:write(headers(self))
  else
    writer:truncate(HEADERS + self.count * self.record)
    writer:write_at(0, headers(self))
  end
  return self
end

--- Appends samples [n,...].
---@param samples perigee.Tensor
function Npz:append(samples)
  local shape = { samples.shape[1], unpack(self.shape) }
  if samples.dtype ~= self.dtype or not layout.same_shape(samples.shape, shape) then
    core.fail("%s: samples are %s [n,%s], not %s %s", self.path, self.dtype, table.concat(self.shape, ","),
      samples.dtype, core.shape_text(samples.shape))
  end
  self.writer:write_tensor(samples)
  self.count = self.count + samples.shape[1]
end

--- Leaves PATH.part for a later writer.
function Npz:suspend() self.writer:suspend() end

--- Makes the archive whole and puts it in place.
function Npz:finish()
  local w, bytes = self.writer, NPY_HEADER + self.count * self.record
  w:write_at(LOCAL_HEADER, header(self, self.count))
  local crc = w:crc32(LOCAL_HEADER, bytes)
  w:write_at(0, local_header(crc, bytes))
  w:write(directory(crc, bytes))
  w:commit()
end

return M
