--- A grid of pictures.
local core = require "perigee.core"
local ops = core.ops

local M = {}

--- Joins uint8 images [N,H,W,C] into one [R·H, columns·W, C] on the CPU, row by row; missing places are black.
---@param images perigee.Tensor
---@param columns? integer  default: as many as make the grid square
---@return perigee.Tensor
function M.join(images, columns)
  images = images:to "cpu"
  local n, h, w, c = unpack(images.shape)
  columns = columns or math.ceil(math.sqrt(n))
  local rows = math.ceil(n / columns)
  if rows * columns > n then
    images = ops.concat({ images, ops.fill({ rows * columns - n, h, w, c }, { value = 0, dtype = "uint8" }) }, 1)
  end
  local by_row = images:reshape({ rows, columns, h, w, c }):permute { 1, 3, 2, 4, 5 }
  return by_row:contiguous():reshape { rows * h, columns * w, c }
end

return M
