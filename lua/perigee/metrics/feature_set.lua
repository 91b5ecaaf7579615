--- Sets of features, float32 [N,D], in memory or in a file, of which rows are read as they are needed.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.FeatureSet
---@field name string   for messages
---@field count integer
---@field width integer
---@field rows fun(self: perigee.FeatureSet, first: integer, count: integer): perigee.Tensor  from 1: float32 [count,D]

local Set = {}
Set.__index = Set

--- Rows by their numbers, which count from 0: float32 [#numbers,D].
---@param numbers integer[]
---@return perigee.Tensor
function Set:pick(numbers)
  local parts = {}
  for k, number in ipairs(numbers) do parts[k] = self:rows(number + 1, 1) end
  return ops.concat(parts, 1)
end

--- Calls take(rows, first) for all rows in pieces.
---@param take fun(rows: perigee.Tensor, first: integer)
function Set:each(take)
  local piece = 1000
  for first = 1, self.count, piece do
    if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
    tensor.tidy(function() take(self:rows(first, math.min(piece, self.count - first + 1)), first) end)
  end
end

---@param features perigee.Tensor  [N,D]
---@param name string
---@return perigee.FeatureSet
function M.of(features, name)
  return setmetatable({ name = name, count = features.shape[1], width = features.shape[2],
    rows = function(_, first, count) return features:narrow(1, first, count):contiguous():to "float32" end }, Set)
end

--- Columns first ... first + width − 1 of a float32 array [N,C] that lies in a file at `offset`.
---@param path string
---@param header { offset: integer, shape: integer[] }
---@param first integer   from 1
---@param width integer
---@param name string
---@return perigee.FeatureSet
function M.in_file(path, header, first, width, name)
  local columns = header.shape[2]
  return setmetatable({ name = name, count = header.shape[1], width = width,
    rows = function(_, row, count)
      return tensor.tidy(function()
        local all = tensor.empty({ count, columns }, "float32")
        files.read_tensor(path, header.offset + (row - 1) * columns * 4, all)
        return all:narrow(2, first, width):contiguous()
      end)
    end }, Set)
end

return M
