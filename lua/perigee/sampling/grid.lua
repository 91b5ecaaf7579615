--- A grid of pictures.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local ops = core.ops

local M = {}

--- Rows and columns of a grid of n pictures; by default as square as it can be.
local function sides(n, columns)
  columns = columns or math.ceil(math.sqrt(n))
  return math.ceil(n / columns), columns
end

--- An error if a grid of n pictures { height, width, channels } is larger than a PNG may be.
---@param path string  named in the error
---@param shape integer[]
---@param columns? integer
function M.check(path, n, shape, columns)
  local rows, most = sides(n, columns), core_ffi.C.PG_PICTURE_MAX_SIDE
  columns = select(2, sides(n, columns))
  local height, width = rows * shape[1], columns * shape[2]
  if height > most or width > most then
    error(("%s: a grid of %d rows and %d columns has %dx%d pixels (width x height), a PNG has at most %dx%d; draw "
      .. "fewer samples, or into a folder or an .npz"):format(path, rows, columns, width, height, most, most), 0)
  end
end

--- Joins uint8 images [N,H,W,C] into one [R·H, columns·W, C] on the CPU, row by row; missing places are black.
---@param images perigee.Tensor
---@param columns? integer  default: as many as make the grid square
---@return perigee.Tensor
function M.join(images, columns)
  images = images:to "cpu"
  local n, h, w, c = unpack(images.shape)
  local rows
  rows, columns = sides(n, columns)
  if rows * columns > n then
    images = ops.concat({ images, ops.fill({ rows * columns - n, h, w, c }, { value = 0, dtype = "uint8" }) }, 1)
  end
  local by_row = images:reshape({ rows, columns, h, w, c }):permute { 1, 3, 2, 4, 5 }
  return by_row:contiguous():reshape { rows * h, columns * w, c }
end

return M
