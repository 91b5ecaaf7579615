--- TensorFlow's frozen graphs (.pb, a GraphDef of protocol buffers): the float32 constants of their nodes, by the
--- nodes' names. Nothing else in them is read. Fields are walked in a window over the file; tensors are read where they
--- lie. The file is not trusted.
---
--- A file looks like one of safetensors (io/safetensors.lua): `names`, `entries`, `info`, `read`.
local core = require "perigee.core.ffi"
local elements = require "perigee.io.elements"
local files = require "perigee.io.files"

local M = {}

local WINDOW = 4096
local MAX_NODES, MAX_NAME, MAX_DIMS = 100000, 1024, 8
local FLOAT = 1 -- DT_FLOAT
-- numbers of the fields that are read
local NODE = 1 -- of a graph
local NAME, ATTRIBUTE = 1, 5 -- of a node
local KEY, VALUE = 1, 2 -- of an attribute
local TENSOR = 8 -- of an attribute's value
local DTYPE, SHAPE, CONTENT, FLOATS = 1, 2, 4, 5 -- of a tensor
local DIMENSION, SIZE = 2, 1

local function refuse(path, format, ...)
  core.fail("%s: not a frozen graph of TensorFlow that can be read: %s", path, format:format(...))
end

-- ---- a place in the file ------------------------------------------------------------------------------------------

local Cursor = {}
Cursor.__index = Cursor

--- `count` bytes from here, which lie in the file.
function Cursor:text(count)
  if self.at + count > self.size then refuse(self.path, "it ends in the middle of a field") end
  local first = self.at - self.begins
  if first < 0 or first + count > #self.window then
    self.begins, first = self.at, 0
    self.window = files.read(self.path, self.at, math.min(math.max(count, WINDOW), self.size - self.at))
  end
  self.at = self.at + count
  return self.window:sub(first + 1, first + count)
end

--- A number in base 128, the low digits first.
function Cursor:varint()
  local value, scale = 0, 1
  for _ = 1, 10 do
    local byte = self:text(1):byte()
    value, scale = value + byte % 128 * scale, scale * 128
    if byte < 128 then return value end
  end
  refuse(self.path, "a number of more than ten bytes at byte %.0f", self.at)
end

--- Calls take(field, value, ending) for each field of a message that ends at byte `ending`: a number, or, of a field
--- with content, where that ends; `take` may leave it unread.
function Cursor:each(ending, take)
  while self.at < ending do
    local tag = self:varint()
    local field, wire = math.floor(tag / 8), tag % 8
    if wire == 0 then take(field, self:varint())
    elseif wire == 1 or wire == 5 then self.at = self.at + (wire == 1 and 8 or 4)
    elseif wire == 2 then
      local length = self:varint()
      local stop = self.at + length
      if stop > ending then refuse(self.path, "a field of %.0f bytes at byte %.0f is cut off", length, self.at) end
      take(field, nil, stop)
      self.at = stop
    else refuse(self.path, "an unknown kind of field at byte %.0f", self.at) end
  end
  if self.at ~= ending then refuse(self.path, "a message ends in the middle of a field, at byte %.0f", ending) end
end

function Cursor:name(ending)
  if ending - self.at > MAX_NAME then refuse(self.path, "a name of %.0f bytes", ending - self.at) end
  return self:text(ending - self.at)
end

-- ---- tensors ------------------------------------------------------------------------------------------------------

local function read_shape(cursor, ending)
  local shape = {}
  cursor:each(ending, function(field, _, stop)
    if field ~= DIMENSION or not stop then return end
    local size = 0
    cursor:each(stop, function(part, value)
      if part == SIZE then size = value or 0 end
    end)
    shape[#shape + 1] = size
    if #shape > MAX_DIMS or size > 2 ^ 40 then refuse(cursor.path, "a tensor of absurd shape") end
  end)
  return shape
end

--- A constant's entry, nil where it is no float32 tensor whose elements lie there one after another.
local function read_tensor(cursor, ending)
  local dtype, shape, offset, bytes
  cursor:each(ending, function(field, value, stop)
    if field == DTYPE then dtype = value
    elseif field == SHAPE and stop then shape = read_shape(cursor, stop)
    elseif (field == CONTENT or field == FLOATS) and stop then offset, bytes = cursor.at, stop - cursor.at end
  end)
  if dtype ~= FLOAT or not shape or not offset then return nil end
  local count = 1
  for _, size in ipairs(shape) do count = count * size end
  if count * 4 ~= bytes then return nil end
  return { dtype = "float32", stored = "F32", shape = shape, bytes = bytes, offset = offset }
end

--- The tensor of a node's attribute "value".
local function read_attribute(cursor, ending)
  local key, at, stops
  cursor:each(ending, function(field, _, stop)
    if field == KEY and stop then key = cursor:name(stop)
    elseif field == VALUE and stop then at, stops = cursor.at, stop end
  end)
  if key ~= "value" or not at then return nil end
  local entry
  cursor.at = at
  cursor:each(stops, function(field, _, stop)
    if field == TENSOR and stop then entry = read_tensor(cursor, stop) end
  end)
  return entry
end

local function read_node(file, cursor, ending)
  local name, entry
  cursor:each(ending, function(field, _, stop)
    if field == NAME and stop then name = cursor:name(stop)
    elseif field == ATTRIBUTE and stop then entry = read_attribute(cursor, stop) or entry end
  end)
  if not entry then return end
  if not name or file.entries[name] then refuse(file.path, "two constants '%s'", tostring(name)) end
  file.names[#file.names + 1], file.entries[name] = name, entry
end

-- ---- files --------------------------------------------------------------------------------------------------------

---@class perigee.TensorflowGraph
---@field path string
---@field kind "tensorflow"
---@field names string[]  of float32 constants, in the graph's order
---@field entries table<string, perigee.SafetensorsEntry>
---@field metadata table<string, string>
local File = {}
File.__index = File

--- Does a file begin as frozen graphs do: with a node that begins with its name?
---@return boolean
function M.begins(path)
  local text = files.read(path, 0, math.min(files.size(path), 8))
  return text:match "^\10[\128-\255]*[%z\1-\127]\10" ~= nil
end

---@param path string
---@return perigee.TensorflowGraph
function M.open(path)
  local file = setmetatable({ path = path, kind = "tensorflow", names = {}, entries = {}, metadata = {} }, File)
  local size, nodes = files.size(path), 0
  local cursor = setmetatable({ path = path, size = size, at = 0, begins = 0, window = "" }, Cursor)
  cursor:each(size, function(field, _, stop)
    if field ~= NODE or not stop then return end
    nodes = nodes + 1
    if nodes > MAX_NODES then refuse(path, "more than %d nodes", MAX_NODES) end
    read_node(file, cursor, stop)
  end)
  return file
end

---@return perigee.SafetensorsEntry
function File:info(name)
  return self.entries[name] or core.fail("%s: it has no constant '%s'", self.path, name)
end

--- Reads one tensor, into a given contiguous one of its shape and dtype if there is one.
---@return perigee.Tensor
function File:read(name, into) return elements.read_entry(self, name, self:info(name), into) end

return M
