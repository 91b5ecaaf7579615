--- Opens a file of tensors by names, of any kind: safetensors, the index of several, PyTorch's. All have `path`,
--- `names`, `entries`, `info` and `read`.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pytorch = require "perigee.io.pytorch"
local safetensors = require "perigee.io.safetensors"
local shards = require "perigee.io.shards"

local M = {}

---@alias perigee.WeightsFile perigee.SafetensorsFile|perigee.ShardedFile|perigee.PytorchFile

--- A missing file is an error that names the path.
---@param path string
---@return perigee.WeightsFile
function M.open(path)
  if not files.exists(path) then core.fail("%s: weights file not found", path) end
  if pytorch.begins(path) then return pytorch.open(path) end
  local text = files.read(path, 0, math.min(files.size(path), 4096))
  if text:sub(1, 1) == "{" and text:find('"weight_map"', 1, true) then return shards.open(path) end
  return safetensors.open(path)
end

return M
