--- Attention maps of a batch's images, and drawing them.
local core = require "perigee.core"

local ops, tensor = core.ops, core.tensor

local M = {}

local SIDE, GAP = 256, 8 -- pixels: a map is about so large; between two maps

--- softmax(Q·Kᵀ/√d) of one image, [H,N,N] as nested lists, from qkv [B,N,3,H,d]; the first `skip` tokens are left out.
---@param qkv perigee.Tensor
---@param image integer  from 1
---@param skip integer
---@return number[][][]
function M.of(qkv, image, skip)
  return tensor.tidy(function()
    local shape = qkv.shape
    local one = qkv:narrow(1, image, 1):narrow(2, skip + 1, shape[2] - skip):contiguous():to "float32"
    local function heads(which) return one:select(3, which):select(1, 1):permute({ 2, 1, 3 }):contiguous() end
    local logits = ops.matmul(heads(1), ops.transpose(heads(2))) * (1 / math.sqrt(shape[5]))
    return ops.softmax(logits, -1):totable()
  end)
end

--- Grey rows of the sum of a map's heads first ... last, each row scaled to its own largest value.
local function grey_rows(map, first, last)
  local n, rows = #map[1], {}
  local scale = math.max(1, math.floor(SIDE / n))
  for i = 1, n do
    local row, largest = {}, 0
    for j = 1, n do
      local sum = 0
      for h = first, last do sum = sum + map[h][i][j] end
      row[j], largest = sum, math.max(largest, sum)
    end
    local line = {}
    for j = 1, n do
      for _ = 1, scale do line[#line + 1] = math.floor(255 * row[j] / math.max(largest, 1e-30) + 0.5) end
    end
    for _ = 1, scale do rows[#rows + 1] = line end
  end
  return rows
end

--- Maps side by side, a white gap between them: uint8 [height,width,1]. Query tokens from top to bottom, keys from left
--- to right; each row is scaled to its own largest value.
---@param maps number[][][][]
---@param head? integer  one head; default: the mean of all
---@return perigee.Tensor
function M.draw(maps, head)
  local sides, height, data = {}, 0, {}
  for k, map in ipairs(maps) do
    sides[k] = grey_rows(map, head or 1, head or #map)
    height = math.max(height, #sides[k])
  end
  for i = 1, height do
    local line = {}
    for s, side in ipairs(sides) do
      if s > 1 then for _ = 1, GAP do line[#line + 1] = { 255 } end end
      for j = 1, #side[1] do line[#line + 1] = { side[i] and side[i][j] or 255 } end
    end
    data[i] = line
  end
  return tensor.tensor(data, "uint8")
end

return M
