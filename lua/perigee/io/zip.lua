--- Zip archives (APPNOTE 6.3, zip64 too). Reading: the directory, where the bytes of entries lie, and single entries,
--- stored or deflated. Nothing is unpacked to the disk, and the directory is not trusted: every entry lies in the file
--- by itself, no name comes twice or leads to another folder, and an entry's unpacked size is one that its bytes can
--- have.
--- Writing: stored entries, each beginning at a multiple of 64 bytes, always zip64.
local bytes_of = require "perigee.base.bytes"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local members = require "perigee.io.members"
local recognise = require "perigee.io.recognise"

local M, little, number = {}, bytes_of.little, bytes_of.number

local MAX_DIRECTORY = 2 ^ 28 -- bytes; of the directory: that of all of ImageNet has 1.2·2^27
local LAST, MAX_COMMENT = 22, 65535 -- bytes of the end record, and of the comment after it
local ENTRY, LOCAL = 46, 30 -- bytes of a directory's entry and of a local header, without their names
local STORED, DEFLATED = 0, 8

---@class perigee.ZipEntry
---@field name string
---@field bytes integer     as unpacked
---@field packed integer    as in the file
---@field stored boolean    neither compressed nor encrypted: its bytes can be read where they lie
---@field header integer    offset of its local header
---@field method integer    0: stored, 8: deflated
---@field crc integer       CRC-32, as the directory says

---@class perigee.ZipFile
---@field path string
---@field entries table<string, perigee.ZipEntry>
---@field names string[]    in the directory's order
local Zip = {}
Zip.__index = Zip

local function refuse(path, format, ...)
  core.fail("%s: not a zip archive that can be read: %s", path, format:format(...))
end

--- Where the end record begins, and its text.
local function find_end(path, size)
  local from = math.max(0, size - LAST - MAX_COMMENT)
  local tail = files.read(path, from, size - from)
  for at = #tail - LAST, 0, -1 do
    if tail:sub(at + 1, at + 4) == "PK\5\6" and at + LAST + number(tail, at + 20, 2) == #tail then
      return from + at, tail:sub(at + 1, at + LAST)
    end
  end
  local other = files.read(path, 0, 2) ~= "PK" and recognise.sentence(path)
  refuse(path, "%s", other or "its directory is missing; the download or copy did not finish")
end

--- The directory's offset, its bytes and the number of entries.
local function find_directory(path, size)
  local at, last = find_end(path, size)
  local count, bytes, offset = number(last, 10, 2), number(last, 12, 4), number(last, 16, 4)
  local locator = at >= 20 and files.read(path, at - 20, 20) or ""
  if locator:sub(1, 4) == "PK\6\7" then
    local place = number(locator, 8, 8)
    if place > size - 56 then refuse(path, "its zip64 record lies outside the file") end
    local record = files.read(path, place, 56)
    if record:sub(1, 4) ~= "PK\6\6" then refuse(path, "it has no zip64 record where that should be") end
    count, bytes, offset = number(record, 32, 8), number(record, 40, 8), number(record, 48, 8)
  end
  if bytes > MAX_DIRECTORY then refuse(path, "a directory of %.0f bytes; the limit is %.0f", bytes, MAX_DIRECTORY) end
  if offset > at or bytes > at - offset then refuse(path, "its directory lies outside the file") end
  return offset, bytes, count
end

--- The sizes and the offset that are in an entry's zip64 field, for those that do not fit.
local function widened(path, entry, extra)
  local at = 0
  while at + 4 <= #extra do
    local kind, length = number(extra, at, 2), number(extra, at + 2, 2)
    if at + 4 + length > #extra then break end
    if kind == 1 then
      local field = at + 4
      for _, key in ipairs { "bytes", "packed", "header" } do
        if entry[key] == 0xffffffff then
          if field + 8 > at + 4 + length then break end
          entry[key], field = number(extra, field, 8), field + 8
        end
      end
    end
    at = at + 4 + length
  end
  for _, key in ipairs { "bytes", "packed", "header" } do
    if entry[key] == 0xffffffff then refuse(path, "the sizes of '%s' are missing", entry.name) end
  end
end

--- Names lead to no other folder.
local function check_name(path, name)
  if members.leads_elsewhere(name) then
    refuse(path, "an entry is named '%s'", (name:sub(1, 120):gsub("%c", "?")))
  end
end

--- The directory's entries, in its order.
local function read_directory(path, size)
  local offset, bytes, count = find_directory(path, size)
  local text, at, list = files.read(path, offset, bytes), 0, {}
  while at < bytes do
    if at + ENTRY > bytes or text:sub(at + 1, at + 4) ~= "PK\1\2" then refuse(path, "its directory is damaged") end
    local flags, method = number(text, at + 8, 2), number(text, at + 10, 2)
    local name_length, extra_length = number(text, at + 28, 2), number(text, at + 30, 2)
    local after = at + ENTRY + name_length + extra_length + number(text, at + 32, 2)
    if after > bytes then refuse(path, "its directory is damaged") end
    local name = text:sub(at + ENTRY + 1, at + ENTRY + name_length)
    check_name(path, name)
    if flags % 2 == 1 then refuse(path, "'%s' is encrypted", name) end
    local entry = { name = name, bytes = number(text, at + 24, 4), packed = number(text, at + 20, 4),
      header = number(text, at + 42, 4), crc = number(text, at + 16, 4), method = method, stored = method == STORED }
    widened(path, entry, text:sub(at + ENTRY + name_length + 1, at + ENTRY + name_length + extra_length))
    if entry.header + LOCAL + name_length > offset or entry.packed > offset - entry.header - LOCAL - name_length then
      refuse(path, "'%s' lies outside the file", name)
    end
    if entry.stored and entry.bytes ~= entry.packed then refuse(path, "'%s' has two sizes", name) end
    list[#list + 1], at = entry, after
  end
  if #list ~= count then refuse(path, "%d entries, its directory announces %.0f", #list, count) end
  return list, offset
end

--- Entries follow one another in the file and do not overlap.
local function check_order(path, list, ending)
  local sorted = {}
  for k, entry in ipairs(list) do sorted[k] = entry end
  table.sort(sorted, function(a, b) return a.header < b.header end)
  for k, entry in ipairs(sorted) do
    local room = (sorted[k + 1] and sorted[k + 1].header or ending) - entry.header
    if LOCAL + #entry.name + entry.packed > room then refuse(path, "'%s' overlaps the next entry", entry.name) end
    entry.room = room
  end
end

--- Opens an archive: its directory is read and checked, no entry is.
---@param path string
---@return perigee.ZipFile
function M.open(path)
  local size = files.size(path)
  if size < LAST then refuse(path, "it has %d bytes", size) end
  local list, ending = read_directory(path, size)
  local self = setmetatable({ path = path, entries = {}, names = {} }, Zip)
  for k, entry in ipairs(list) do
    if self.entries[entry.name] then refuse(path, "'%s' comes twice", entry.name) end
    self.entries[entry.name], self.names[k] = entry, entry.name
  end
  check_order(path, list, ending)
  return self
end

--- Where an entry's bytes begin in the file, as its own header says, which must agree with the directory's.
local function begin_of(self, entry)
  local name = entry.name
  local header = files.read(self.path, entry.header, LOCAL + #name)
  if header:sub(1, 4) ~= "PK\3\4" or number(header, 26, 2) ~= #name or header:sub(LOCAL + 1) ~= name then
    refuse(self.path, "'%s' is another entry at its place", name)
  end
  local begins = LOCAL + #name + number(header, 28, 2)
  if begins + entry.packed > entry.room then refuse(self.path, "'%s' overlaps the next entry", name) end
  return entry.header + begins
end

local function entry_of(self, name)
  return self.entries[name] or core.fail("%s: it has no entry '%s'", self.path, name)
end

--- Where a stored entry's bytes begin in the file, and how many they are. An error for one that is missing or
--- compressed.
---@param name string
---@return integer offset
---@return integer bytes
function Zip:place(name)
  local entry = entry_of(self, name)
  if not entry.stored then core.fail("%s: its entry '%s' is compressed; stored ones are read", self.path, name) end
  return begin_of(self, entry), entry.bytes
end

--- Where an entry lies, for the runtime (pg_place).
---@param name string
---@return perigee.Member
function Zip:member(name)
  local entry = entry_of(self, name)
  if not entry.stored and entry.method ~= DEFLATED then
    core.fail("%s: its entry '%s' is compressed by method %d; stored and deflated ones are read", self.path, name,
      entry.method)
  end
  return { offset = begin_of(self, entry), packed = entry.packed, bytes = entry.bytes, crc = entry.crc, summed = 1,
    deflated = entry.stored and 0 or 1 }
end

--- An entry's bytes, at most `most` of them.
---@return string
function Zip:read(name, most)
  local entry = entry_of(self, name)
  if most and entry.bytes > most then
    core.fail("%s: its entry '%s' has %.0f bytes; at most %.0f are read", self.path, name, entry.bytes, most)
  end
  local member = self:member(name)
  if entry.stored then member.summed = 0 end -- PyTorch can be told to write none
  return members.read(self.path, name, member)
end

-- ---- writing ----------------------------------------------------------------------------------------------------

local ALIGNMENT = 64
local MANY = ("\255"):rep(4) -- "see the zip64 field"

local STAMP = little(0, 2) .. little(33, 2) -- 1 January 1980, midnight

---@class perigee.ZipWriter
local ZipWriter = {}
ZipWriter.__index = ZipWriter

--- The fields that a local header and the directory share, from the version to the name's length.
local function fields(entry)
  return little(45, 2) .. little(0, 2) .. little(STORED, 2) .. STAMP .. little(entry.crc, 4) .. MANY .. MANY
    .. little(#entry.name, 2)
end

--- A local header whose extra fields, the sizes and a padding, make the bytes begin at a multiple of ALIGNMENT.
local function local_header(entry)
  local sizes = little(1, 2) .. little(16, 2) .. little(entry.bytes, 8):rep(2)
  local length = LOCAL + #entry.name + #sizes + 4
  local padding = -(entry.header + length) % ALIGNMENT
  return "PK\3\4" .. fields(entry) .. little(#sizes + 4 + padding, 2) .. entry.name .. sizes
    .. "FB" .. little(padding, 2) .. ("Z"):rep(padding)
end

--- Appends an entry: `write` appends its bytes and returns their CRC-32.
function ZipWriter:add(name, bytes, write)
  local w = self.writer
  local entry = { name = name, bytes = bytes, crc = 0, header = w:bytes() }
  w:write(local_header(entry))
  entry.crc = write(w)
  w:write_at(entry.header, local_header(entry))
  self.entries[#self.entries + 1] = entry
end

function ZipWriter:add_text(name, text)
  self:add(name, #text, function(w)
    w:write(text)
    return core.C.pg_crc32(0, text, #text)
  end)
end

---@param t perigee.Tensor
function ZipWriter:add_tensor(name, t)
  self:add(name, t:bytes(), function(w) return w:write_tensor(t, true) end)
end

local function write_directory(self)
  local w, begins = self.writer, self.writer:bytes()
  for _, entry in ipairs(self.entries) do
    w:write("PK\1\2" .. little(45, 2) .. fields(entry) .. little(28, 2) .. little(0, 2 + 2 + 2 + 4) .. MANY
      .. entry.name .. little(1, 2) .. little(24, 2) .. little(entry.bytes, 8):rep(2) .. little(entry.header, 8))
  end
  local ends, count = w:bytes(), #self.entries
  w:write("PK\6\6" .. little(44, 8) .. little(45, 2):rep(2) .. little(0, 8) .. little(count, 8):rep(2)
    .. little(ends - begins, 8) .. little(begins, 8))
  w:write("PK\6\7" .. little(0, 4) .. little(ends, 8) .. little(1, 4))
  w:write("PK\5\6" .. little(0, 4) .. little(math.min(count, 65535), 2):rep(2) .. MANY .. MANY .. little(0, 2))
end

--- Writes an archive: body(archive) adds entries. The file appears whole or not at all.
---@param path string
---@param body fun(archive: perigee.ZipWriter)
function M.save(path, body)
  files.with_writer(path, function(w)
    local archive = setmetatable({ writer = w, entries = {} }, ZipWriter)
    body(archive)
    write_directory(archive)
  end)
end

return M
