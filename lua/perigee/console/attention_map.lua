--- Attention maps of a batch's images, drawn so that one sees them next to the picture.
local core = require "perigee.core"
local picture = require "perigee.plot.picture"

local ops, tensor = core.ops, core.tensor

local M = {}

local SIDE, GAP = 256, 8  -- pixels: a map or picture is about so large; between two of them
local SINK = 5            -- a key that gets so many times the median key's attention takes no part in the scale
local QUANTILE = 0.98     -- of the other weights is white
local DARK = 0.15         -- of the picture's brightness, where a query looks least

--- softmax(Q·Kᵀ/√d) of one image, float32 [H,N,N], from qkv [B,N,3,H,d]; the first `skip` tokens are left out.
---@param qkv perigee.Tensor
---@param image integer  from 1
---@param skip integer
---@return perigee.Tensor
function M.of(qkv, image, skip)
  return tensor.tidy(function()
    local shape = qkv.shape
    local one = qkv:narrow(1, image, 1):narrow(2, skip + 1, shape[2] - skip):contiguous():to "float32"
    local function heads(which) return one:select(3, which):select(1, 1):permute({ 2, 1, 3 }):contiguous() end
    local logits = ops.matmul(heads(1), ops.transpose(heads(2))) * (1 / math.sqrt(shape[5]))
    return ops.softmax(logits, -1)
  end)
end

--- Which keys of a map [N,N] are sinks: those that nearly every query attends to.
---@return boolean[] sinks, integer count
function M.sinks(map)
  local received, list, count = map:mean(1):totable(), {}, 0
  local sorted = { unpack(received) }
  table.sort(sorted)
  local median = sorted[math.ceil(#sorted / 2)]
  for k, weight in ipairs(received) do
    list[k] = weight > SINK * median
    count = count + (list[k] and 1 or 0)
  end
  return list, count
end

--- The weight that is drawn white: a high quantile of those that do not go to a sink.
local function white(map, sinks)
  local rows, kept = map:totable(), {}
  for _, row in ipairs(rows) do
    for j, weight in ipairs(row) do
      if not sinks[j] then kept[#kept + 1] = weight end
    end
  end
  table.sort(kept)
  return math.max(kept[math.ceil(QUANTILE * #kept)] or 0, 1e-30)
end

--- An image uint8 [H,W,C] or numbers [H,W] as uint8 [h,w,3] of about SIDE pixels.
local function tile(image)
  if #image.shape == 2 then image = image:unsqueeze(3) end
  local h, w, c = unpack(image.shape)
  local large = picture.enlarge(image:unsqueeze(1), math.max(1, math.floor(SIDE / math.max(h, w)))):select(1, 1)
  return c == 3 and large or ops.concat({ large, large, large }, 3)
end

--- Cells [rows,cols] as numbers [h,w], each cell h/rows × w/cols pixels (the nearest cell of every pixel).
local function spread(cells, h, w)
  local function index(size, count)
    local list = {}
    for k = 1, size do list[k] = math.floor((k - 1) * count / size) end
    return tensor.tensor(list, { size }, "int64")
  end
  return cells:index_select(1, index(h, cells.shape[1])):index_select(2, index(w, cells.shape[2]))
end

--- A red line around a cell of a grid in a picture [h,w,3].
local function outlined(image, grid, cell)
  local h, w = image.shape[1], image.shape[2]
  local function span(size, count, k) return math.floor((k - 1) * size / count) + 1, math.floor(k * size / count) end
  local top, bottom = span(h, grid[1], cell[1])
  local left, right = span(w, grid[2], cell[2])
  local marked = image:clone()
  local red = tensor.tensor({ 255, 32, 32 }, "uint8")
  for _, box in ipairs { { top, top + 1, left, right }, { bottom - 1, bottom, left, right },
    { top, bottom, left, left + 1 }, { top, bottom, right - 1, right } } do
    marked:narrow(1, box[1], box[2] - box[1] + 1):narrow(2, box[3], box[4] - box[3] + 1)
      :copy_(red:expand { box[2] - box[1] + 1, box[4] - box[3] + 1, 3 }:contiguous())
  end
  return marked
end

--- The cell of a grid that lies where `cell` lies in another one.
local function moved(cell, from, to)
  local function along(d) return math.min(to[d], math.floor((cell[d] - 0.5) * to[d] / from[d]) + 1) end
  return { along(1), along(2) }
end

--- One side's tiles: where the query looks, laid over the picture, and the whole map, queries from top to bottom, keys
--- from left to right.
local function side_tiles(side, image, cell, head)
  local heads, grid = side.map, side.grid
  local map = head and heads:select(1, head) or heads:mean(1)
  local sinks = M.sinks(map)
  local bytes = picture.bytes(map, 0, white(map, sinks))
  local row = bytes:select(1, (cell[1] - 1) * grid[2] + cell[2]):reshape(grid[1], grid[2])
  local light = spread(row:to "float32", image.shape[1], image.shape[2]) * ((1 - DARK) / 255) + DARK
  local over = (image:to "float32" * light:unsqueeze(3)):round():to "uint8"
  return outlined(over, grid, cell), tile(bytes)
end

--- The picture with the query outlined, then for each side (the student, the teacher) the picture as bright as the
--- query attends to it, and the map: uint8 [height,width,3]. White is in each map a high quantile of the weights
--- without those of sinks.
---@param image perigee.Tensor|nil  uint8 [H,W,C]; nil: there is none, latents for instance
---@param sides { map: perigee.Tensor, grid: integer[] }[]  maps [H,N,N] over grids { rows, columns }
---@param query? integer[]  { row, column } in the first side's grid; default: its middle
---@param head? integer     one head; default: the mean of all
---@return perigee.Tensor
function M.draw(image, sides, query, head)
  return tensor.tidy(function()
    local grid = sides[1].grid
    query = query or { math.ceil(grid[1] / 2), math.ceil(grid[2] / 2) }
    local shown = image and tile(image:to "cpu") or ops.fill({ SIDE, SIDE, 3 }, { value = 255, dtype = "uint8" })
    local tiles = { outlined(shown, grid, query) }
    for _, side in ipairs(sides) do
      local over, map = side_tiles({ map = side.map:to "cpu", grid = side.grid }, shown, moved(query, grid, side.grid),
        head)
      tiles[#tiles + 1], tiles[#tiles + 2] = over, map
    end
    return picture.row(tiles, GAP)
  end)
end

return M
