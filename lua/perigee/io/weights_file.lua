--- Opens a file of tensors by names, of any kind: safetensors, the index of several, PyTorch's, a frozen graph of
--- TensorFlow's. All have `path`, `names`, `entries`, `info` and `read`.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pytorch = require "perigee.io.pytorch"
local safetensors = require "perigee.io.safetensors"
local shards = require "perigee.io.shards"
local tensorflow_graph = require "perigee.io.tensorflow_graph"

local M = {}

---@alias perigee.WeightsFile perigee.SafetensorsFile|perigee.ShardedFile|perigee.PytorchFile|perigee.TensorflowGraph

--- REPA's older checkpoints call the blocks after the aligned one decoder_blocks.0, 1, ...: these get the numbers that
--- follow the last of blocks.
local function number_decoder_blocks(file)
  local depth = {} -- by what stands before "blocks."
  for _, name in ipairs(file.names) do
    local prefix, number = name:match "^(.-)blocks%.(%d+)%."
    if prefix and (prefix == "" or prefix:sub(-1) == ".") and file.entries[prefix .. "x_embedder.proj.weight"] then
      depth[prefix] = math.max(depth[prefix] or 0, number + 1)
    end
  end
  for k, name in ipairs(file.names) do
    local prefix, number, rest = name:match "^(.-)decoder_blocks%.(%d+)(%..+)$"
    local new = depth[prefix] and ("%sblocks.%d%s"):format(prefix, depth[prefix] + number, rest)
    if new then file.names[k], file.entries[new], file.entries[name] = new, file.entries[name], nil end
  end
  return file
end

--- A missing file is an error that names the path.
---@param path string
---@return perigee.WeightsFile
function M.open(path)
  if not files.exists(path) then core.fail("%s: weights file not found", path) end
  if pytorch.begins(path) then return number_decoder_blocks(pytorch.open(path)) end
  local text = files.read(path, 0, math.min(files.size(path), 4096))
  if text:sub(1, 1) == "{" and text:find('"weight_map"', 1, true) then return shards.open(path) end
  if tensorflow_graph.begins(path) then return tensorflow_graph.open(path) end
  return safetensors.open(path)
end

return M
