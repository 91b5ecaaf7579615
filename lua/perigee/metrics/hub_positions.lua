--- Positions of a vision transformer at another grid, as DINOv2's own code resamples them: bicubic (a = −0.75, edges
--- repeated), not by the grids' sizes but by the scale (new + 0.1)/old. REPA resamples otherwise, so this is for
--- FD-DINOv2 alone.
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

local OFFSET, A = 0.1, -0.75

local function cubic(x)
  x = math.abs(x)
  if x < 1 then return (A + 2) * x ^ 3 - (A + 3) * x ^ 2 + 1 end
  return x < 2 and A * (x ^ 3 - 5 * x ^ 2 + 8 * x - 4) or 0
end

--- The matrix [to,from] of one axis.
local function axis(from, to, offset)
  local scale, rows = from / (to + offset), {}
  for i = 1, to do
    local row = {}
    for k = 1, from do row[k] = 0 end
    local centre = (i - 0.5) * scale - 0.5
    for k = math.floor(centre) - 1, math.floor(centre) + 2 do
      local at = math.max(0, math.min(from - 1, k)) + 1
      row[at] = row[at] + cubic(k - centre)
    end
    rows[i] = row
  end
  return tensor.tensor(rows, "float64")
end

--- Positions [1,1 + H·W,D] of a class token and a grid { H, W } at another grid: [1,1 + H2·W2,D].
---@param position perigee.Tensor
---@param from integer[]
---@param to integer[]
---@param offset? number  0.1
---@return perigee.Tensor
function M.resample(position, from, to, offset)
  local width, t = position.shape[3], position:to("cpu"):to "float64"
  local down, across = axis(from[1], to[1], offset or OFFSET), axis(from[2], to[2], offset or OFFSET)
  local grid = t:narrow(2, 2, from[1] * from[2]):contiguous():reshape { from[1], from[2] * width }
  grid = ops.matmul(down, grid):reshape { to[1], from[2], width } -- rows
  local parts = {}
  for row = 1, to[1] do parts[row] = ops.matmul(across, grid:select(1, row):contiguous()) end
  local patches = ops.concat(parts, 1):reshape { 1, to[1] * to[2], width }
  return ops.concat({ t:narrow(2, 1, 1):contiguous(), patches }, 2):to(position.dtype)
end

return M
