--- A file of a cached teacher: one value for every image, as it lies on disk.
---
---   header   a multiple of 4096 bytes: a line of text, and as JSON all that decides what the records hold
---   records  mirrored·count + index, each: the value, CRC-32, zeros to a multiple of 64
---
--- A record's CRC continues from those of the header and of the record's own number: a hole in the file, or a record
--- copied from another place or file, fails the check, which the loader makes when it first reads the record. A file
--- grows as PATH.part and is renamed when it is whole; of what an interruption leaves, the sound records are kept.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local C, check = core.C, core.check
local PAGE, ALIGNMENT, CRC = 4096, 64, 4
local CHUNK = 4 * 2 ^ 20 -- bytes read at once where records are checked

---@class perigee.CacheFile
---@field path string
---@field header string
---@field seed integer    the header's CRC-32: records' continue from it
---@field field perigee.TeacherField
---@field bytes integer   of a record's value
---@field stride integer  bytes from one record to the next
---@field count integer   images
---@field images integer  records an image: 2 where the data flip
---@field records integer
---@field writer? perigee.Writer  of PATH.part, while the file is filled, with
---@field have? integer           how many records it had before
---@field bad? table<integer, boolean>  which of them are not sound
---@field found? integer          and how many those are
local File = {}
File.__index = File

local M = {}

local function round_up(n, unit) return math.ceil(n / unit) * unit end

--- Bytes from one record to the next, for values of so many bytes.
function M.stride(bytes) return round_up(bytes + CRC, ALIGNMENT) end

--- Bytes of a file with so many records; its header is taken to be one page.
function M.size(records, stride) return PAGE + records * stride end

--- The header that says what decides the records.
---@param deciding table  as JSON
function M.header(deciding)
  local text = "perigee teacher cache\n" .. json.encode(deciding) .. "\n"
  return text .. (" "):rep(round_up(#text, PAGE) - #text)
end

--- A file that may or may not be there.
---@param file { path: string, header: string, field: perigee.TeacherField, bytes: integer, stride: integer,
---  count: integer, images: integer }
---@return perigee.CacheFile
function M.new(file)
  file.seed, file.records = C.pg_crc32(0, file.header, #file.header), file.count * file.images
  return setmetatable(file, File)
end

--- The text after "64 images" where so many records are an image's.
function M.mirrors(images) return images == 2 and " and their mirror images" or "" end

--- Has a run been asked to end?
function M.interrupted() return C.pg_signals_pending() ~= 0 end

--- Bytes of the finished file.
function File:whole_bytes() return #self.header + self.records * self.stride end

local function has_header(self, path)
  return files.size(path) >= #self.header and files.read(path, 0, #self.header) == self.header
end

--- Does the file that has its name have its size and header?
function File:is_whole() return files.size(self.path) == self:whole_bytes() and has_header(self, self.path) end

--- Where its records lie, for a loader.
function File:source()
  return { path = self.path, offset = #self.header, stride = self.stride, seed = self.seed,
           mirrored = (self.images - 1) * self.count * self.stride }
end

--- CRC-32 of the value at `bytes` as record `number`, from 0.
local function record_sum(self, bytes, number) return C.pg_record_crc32(self.seed, number, bytes, self.bytes) end

--- Is the record at `bytes` sound?
local function is_sound(self, bytes, number)
  local stored = ffi.new "uint32_t[1]"
  ffi.copy(stored, bytes + self.bytes, CRC)
  return stored[0] == record_sum(self, bytes, number)
end

--- Numbers of the records among the first `have` in PATH.part that are not sound, as a set, and how many. Nil:
--- interrupted.
local function unsound(self, have)
  local stride, bad, found = self.stride, {}, 0
  local at_once = math.max(1, math.floor(CHUNK / stride))
  local buffer = ffi.new("uint8_t[?]", at_once * stride)
  for first = 0, have - 1, at_once do
    if M.interrupted() then return nil end
    local count = math.min(at_once, have - first)
    check(C.pg_file_read(self.path .. ".part", #self.header + first * stride, buffer, count * stride))
    for k = 0, count - 1 do
      if not is_sound(self, buffer + k * stride, first + k) then
        bad[first + k], found = true, found + 1
      end
    end
  end
  return bad, found
end

--- Takes up PATH.part with its writer: finds the unsound records and cuts off an incomplete last one, or empties a file
--- that isn't this one. False: interrupted.
---@param writer perigee.Writer
function File:resume(writer)
  self.writer = writer
  if not has_header(self, self.path .. ".part") or writer:bytes() > self:whole_bytes() then
    writer:truncate(0)
    self.have, self.bad, self.found = 0, {}, 0
    return true
  end
  self.have = math.floor((writer:bytes() - #self.header) / self.stride)
  writer:truncate(#self.header + self.have * self.stride)
  self.bad, self.found = unsound(self, self.have)
  return self.bad ~= nil
end

--- Is a record still to be written?
function File:wants(number) return number >= self.have or self.bad[number] == true end

--- Writes a record: value and sum; `record` is room for it, which ends with zeros.
function File:write(number, value, record)
  ffi.copy(record, value, self.bytes)
  ffi.copy(record + self.bytes, ffi.new("uint32_t[1]", record_sum(self, value, number)), CRC)
  local at = #self.header + number * self.stride
  if at == self.writer:bytes() then self.writer:write(record, self.stride)
  else self.writer:write_at(at, ffi.string(record, self.stride)) end
end

return M
