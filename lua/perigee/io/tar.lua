--- Tar archives (POSIX ustar, with GNU's and pax's long names): the headers, and where members' bytes lie. Nothing is
--- unpacked, and headers are not trusted: every member lies in the file, its name leads to no other folder and comes
--- once.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local members = require "perigee.io.members"
local recognise = require "perigee.io.recognise"

local M = {}

local BLOCK = 512
local MAX_NAME = 2 ^ 16 -- bytes of a long name's record

---@class perigee.TarFile
---@field path string
---@field names string[]    of its regular files, in the archive's order
---@field entries table<string, perigee.Member>
local Tar = {}
Tar.__index = Tar

local function refuse(path, format, ...)
  core.fail("%s: not a tar archive that can be read: %s", path, format:format(...))
end

--- The text of a field, up to its zero byte.
local function text_of(header, at, length) return (header:sub(at + 1, at + length):match "^%Z*") end

--- A number: octal digits, or, where the first bit is set, a binary one.
local function number_of(path, header, at, length)
  if header:byte(at + 1) >= 128 then
    local value = header:byte(at + 1) % 64
    for k = at + 2, at + length do value = value * 256 + header:byte(k) end
    if value >= 2 ^ 52 then refuse(path, "a member of more than 2^52 bytes") end
    return value
  end
  local digits = header:sub(at + 1, at + length):match "^ *([0-7]+)[ %z]*$"
  if not digits then refuse(path, "a header has no number where one belongs") end
  return tonumber(digits, 8)
end

local function check_sum(path, header, at)
  local sum = 8 * 32 -- the sum's own bytes count as spaces
  for k = 1, BLOCK do
    if k <= 148 or k > 156 then sum = sum + header:byte(k) end
  end
  if sum ~= number_of(path, header, 148, 8) then
    refuse(path, "the header at byte %.0f is damaged", at)
  end
end

local function check_name(path, name)
  if members.leads_elsewhere(name) then
    refuse(path, "a member is named '%s'", (name:sub(1, 120):gsub("%c", "?")))
  end
end

--- What a pax header says: "LENGTH key=value\n", one after another.
local function pax_fields(path, text)
  local found, at = {}, 1
  while at <= #text do
    local digits = text:match("^(%d+) ", at)
    local length = tonumber(digits)
    if not length or length <= #digits + 1 or at + length - 1 > #text then refuse(path, "a pax header is damaged") end
    local key, value = text:sub(at + #digits + 1, at + length - 2):match "^([^=]+)=(.*)$"
    if key then found[key] = value end
    at = at + length
  end
  return found
end

--- The records that say something about the next member: its long name, its size.
local function read_record(path, at, bytes)
  if bytes > MAX_NAME then refuse(path, "a name of %.0f bytes", bytes) end
  return files.read(path, at, bytes)
end

local function add(self, name, offset, bytes)
  name = name:gsub("^%./", "")
  check_name(self.path, name)
  if self.entries[name] then refuse(self.path, "'%s' comes twice", name) end
  self.entries[name] = { offset = offset, packed = bytes, bytes = bytes, deflated = 0 }
  self.names[#self.names + 1] = name
end

--- One header at `at`, and what it is about; returns where the next one is.
local function read_member(self, header, at, size, next_one)
  local path = self.path
  check_sum(path, header, at)
  local kind = header:sub(157, 157)
  local bytes = next_one.size or number_of(path, header, 124, 12)
  local begins = at + BLOCK
  if bytes > size - begins then refuse(path, "the member at byte %.0f lies outside the file", at) end
  local prefix = header:sub(258, 262) == "ustar" and header:sub(263, 263) == "\0" and text_of(header, 345, 155) or ""
  local name = next_one.name or (prefix ~= "" and prefix .. "/" or "") .. text_of(header, 0, 100)
  if kind == "L" then next_one.name = read_record(path, begins, bytes):match "^%Z*"
  elseif kind == "x" then
    local fields = pax_fields(path, read_record(path, begins, bytes))
    next_one.name, next_one.size = fields.path or next_one.name, tonumber(fields.size)
  elseif kind ~= "K" and kind ~= "g" then
    if kind == "0" or kind == "\0" then add(self, name, begins, bytes) end -- others are folders, links, devices
    next_one.name, next_one.size = nil, nil
  end
  return begins + math.ceil(bytes / BLOCK) * BLOCK
end

--- Opens an archive: its headers are read.
---@param path string
---@return perigee.TarFile
function M.open(path)
  local size = files.size(path)
  local self = setmetatable({ path = path, names = {}, entries = {} }, Tar)
  local ours = size > BLOCK and files.read(path, 257, 5) == "ustar"
  local other = not ours and recognise.sentence(path) -- the oldest archives have no mark
  if other then refuse(path, "%s", other) end
  local at, next_one, zeros = 0, {}, ("\0"):rep(BLOCK)
  while true do
    if at + BLOCK > size then
      refuse(path, "it has no end; the download or copy did not finish")
    end
    local header = files.read(path, at, BLOCK)
    if header == zeros then return self end
    at = read_member(self, header, at, size, next_one)
  end
end

local function entry_of(self, name)
  return self.entries[name] or core.fail("%s: it has no member '%s'", self.path, name)
end

--- Where a member lies, for the runtime (pg_place).
---@return perigee.Member
function Tar:member(name) return entry_of(self, name) end

--- A member's bytes, at most `most` of them.
---@return string
function Tar:read(name, most)
  local entry = entry_of(self, name)
  if most and entry.bytes > most then
    core.fail("%s: its member '%s' has %.0f bytes; at most %.0f are read", self.path, name, entry.bytes, most)
  end
  return members.read(self.path, name, entry)
end

return M
