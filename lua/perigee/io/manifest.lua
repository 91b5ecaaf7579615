--- What `perigee prepare` has made, a line a sample, next to what it made: FOLDER/NAME.manifest. The first line says of
--- what it was made and how; the others, in the order of the samples' numbers,
---
---   00000007 <tab> CRC-32 <tab> bytes <tab> label or "-" <tab> name
---
--- are appended once their files are on the disk. So a start, after whatever ended the last one, goes on after the last
--- whole line. A sample that could not be read and was left out has "-" for its sum, and behind its name the reason. Of
--- mirror images, whose files are as long, the sum is a sixth column.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tables = require "perigee.base.tables"

local M = {}

local MARK = "perigee manifest "

---@class perigee.ManifestLine
---@field crc? string      eight digits; nil: left out
---@field bytes? integer
---@field label? integer
---@field name string
---@field reason? string   why it was left out
---@field mirrored? string

---@class perigee.Manifest
---@field path string
---@field about table            the first line: strings, numbers and switches by name
---@field lines perigee.ManifestLine[]   sample k is line k + 1
local Manifest = {}
Manifest.__index = Manifest

local function clean(text) return (text:gsub("[\t\r\n]", "?")) end

local function text_of(number, line)
  local last = line.reason or line.mirrored
  return ("%08d\t%s\t%s\t%s\t%s%s\n"):format(number, line.crc or "-", line.bytes and ("%d"):format(line.bytes) or "-",
    line.label and ("%d"):format(line.label) or "-", clean(line.name), last and "\t" .. clean(last) or "")
end

local function line_of(path, number, text)
  local digits, crc, bytes, label, name, last = text:match "^(%d+)\t(%S+)\t(%S+)\t(%S+)\t([^\t]*)\t?([^\t]*)$"
  local fine = tonumber(digits) == number and (crc == "-" or crc:match "^%x%x%x%x%x%x%x%x$")
  if not fine then core.fail("%s: line %d is damaged", path, number + 2) end
  local left_out = crc == "-"
  return { crc = not left_out and crc or nil, bytes = tonumber(bytes), label = tonumber(label), name = name,
    reason = left_out and last or nil, mirrored = not left_out and last ~= "" and last or nil }
end

--- A manifest that is there; nil if there is none. The second result is its text up to the last whole line.
---@param path string
---@return perigee.Manifest?
---@return string? text
function M.read(path)
  if not files.exists(path) then return nil end
  local text = files.read(path)
  local whole = text:match "^(.*\n)" or ""
  local first = whole:match "^[^\n]*\n"
  if not first then return nil end
  if first:sub(1, #MARK) ~= MARK then core.fail("%s: not a manifest of perigee prepare", path) end
  local self = setmetatable({ path = path, about = json.decode(first:sub(#MARK + 1, -2), path), lines = {} }, Manifest)
  for line in whole:sub(#first + 1):gmatch "[^\n]+" do
    self.lines[#self.lines + 1] = line_of(path, #self.lines, line)
  end
  return self, whole, text
end

--- What a manifest's first line says; nil where there is none.
---@param path string
---@return table?
function M.about(path)
  local first = files.exists(path) and files.read(path, 0, math.min(files.size(path), 2 ^ 16)):match "^[^\n]*\n"
  return first and first:sub(1, #MARK) == MARK and json.decode(first:sub(#MARK + 1, -2), path) or nil
end

local CALLED = { mirrored = "--flips", vae = "autoencoder", list = "list of pictures" } -- else as the manifest does

--- An error about the first thing that is not as it was.
local function expect_same(path, before, now)
  for _, key in ipairs(tables.sorted_keys(tables.merged(before, now))) do
    if before[key] ~= now[key] then
      core.fail("%s says that this folder was begun with another %s (%s, now %s); remove it with what it lists, or "
        .. "choose another folder", path, CALLED[key] or key, tostring(before[key]), tostring(now[key]))
    end
  end
end

--- The manifest at a path, begun if there is none; `about` must be what it was begun with.
---@return perigee.Manifest
function M.open(path, about)
  local self, whole, text = M.read(path)
  if self then
    expect_same(path, self.about, about)
    if whole ~= text then files.write(path, whole) end
    return self
  end
  files.write(path, MARK .. json.encode(about) .. "\n")
  return setmetatable({ path = path, about = about, lines = {} }, Manifest)
end

--- Appends lines, whose files are on the disk.
---@param lines perigee.ManifestLine[]
function Manifest:append(lines)
  local texts, count = {}, #self.lines
  for k, line in ipairs(lines) do texts[k] = text_of(count + k - 1, line) end
  local writer = files.append(self.path)
  local fine, message = pcall(writer.write, writer, table.concat(texts))
  writer:suspend()
  if not fine then error(message, 0) end
  for k, line in ipairs(lines) do self.lines[count + k] = line end
end

--- Whether all samples are there.
function Manifest:is_whole() return #self.lines == self.about.count end

return M
