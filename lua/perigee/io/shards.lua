--- A model in several safetensors files and an index, as Hugging Face saves large ones:
--- {"metadata": {...}, "weight_map": {"name": "model-00001-of-00002.safetensors", ...}}. The index is not trusted.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local safetensors = require "perigee.io.safetensors"
local tables = require "perigee.base.tables"

local M = {}

---@class perigee.ShardedFile
---@field path string        of the index
---@field names string[]
---@field entries table<string, perigee.SafetensorsEntry>
---@field metadata table<string, string>
local File = {}
File.__index = File

local function refuse(path, format, ...)
  core.fail("%s: not an index of safetensors files: %s", path, format:format(...))
end

--- The file of a shard in the index's folder.
local function open_shard(path, shard)
  if type(shard) ~= "string" or shard:find "[/%z]" or not shard:match "%.safetensors$" then
    refuse(path, "it names the file '%s'", tostring(shard):gsub("%c", "?"))
  end
  local place = files.split(path) .. "/" .. shard
  if not files.exists(place) then core.fail("%s: its file %s is missing", path, place) end
  return safetensors.open(place)
end

--- Opens the index and all files that it names: every tensor is in the file that the index says, and in no other.
---@param path string
---@return perigee.ShardedFile
function M.open(path)
  local index = json.read(path)
  local map = type(index) == "table" and index.weight_map
  if type(map) ~= "table" or json.is_array(map) and next(map) then refuse(path, "it has no weight_map") end
  local self = setmetatable({ path = path, names = tables.sorted_keys(map), entries = {}, metadata = {} }, File)
  self.shards = {}
  local opened = {}
  for _, name in ipairs(self.names) do
    local shard = map[name]
    opened[shard] = opened[shard] or open_shard(path, shard)
    local entry = opened[shard].entries[name]
    if not entry then core.fail("%s: tensor '%s' is not in %s", path, name, opened[shard].path) end
    self.entries[name], self.shards[name] = entry, opened[shard]
  end
  for _, file in pairs(opened) do
    for _, name in ipairs(file.names) do
      if self.shards[name] ~= file then
        core.fail("%s: tensor '%s' of %s is not in the index", path, name, file.path)
      end
    end
  end
  return self
end

---@return perigee.SafetensorsEntry
function File:info(name)
  return self.entries[name] or core.fail("%s: it has no tensor '%s'", self.path, name)
end

--- Reads one tensor, into a given contiguous tensor of its shape and dtype if there is one.
---@return perigee.Tensor
function File:read(name, into)
  self:info(name)
  return self.shards[name]:read(name, into)
end

return M
