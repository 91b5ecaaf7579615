--- The turns of rotary positions (Su et al. 2021, arXiv 2104.09864), as ops.rotary takes them: cosines and sines
--- [1,N,2,d/2] of N tokens' angles, d the size of a head.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local M = {}

--- Turns of `count` tokens; angle(token, pair) counts both from 0.
local function turns_of(count, pairs_, dtype, angle)
  local values = ffi.new("double[?]", count * 2 * pairs_)
  for token = 0, count - 1 do
    for k = 0, pairs_ - 1 do
      local a = angle(token, k)
      values[token * 2 * pairs_ + k], values[(token * 2 + 1) * pairs_ + k] = math.cos(a), math.sin(a)
    end
  end
  return tensor.tensor(values, { 1, count, 2, pairs_ }, "float64"):to(dtype or "float32")
end

--- Tokens in a line: token i turns pair k by i·base^(−2k/d).
---@param count integer
---@param size integer  of a head; even
---@param options? { base?: number, dtype?: string }  10000; float32, or float64 for models in that
---@return perigee.Tensor
function M.line(count, size, options)
  options = options or {}
  if size % 2 ~= 0 then core.fail("rotary positions: heads of size %d; expected an even size", size) end
  local base = options.base or 10000
  return turns_of(count, size / 2, options.dtype, function(token, k) return token * base ^ (-2 * k / size) end)
end

--- Tokens of a grid, row by row: the first half of the pairs turns by the row, the second by the column, with periods
--- that grow as base^(4k/d). Rows and columns count from 0; with `centres` they are the patches' middles, from −1 to 1
--- over the picture, times 2π, as DINOv3 has them (arXiv 2508.10104).
---@param grid integer[]  { rows, columns }
---@param size integer    of a head; a multiple of 4
---@param options? { base?: number, centres?: boolean, dtype?: string }  10000; false; float32
---@return perigee.Tensor
function M.grid(grid, size, options)
  options = options or {}
  if size % 4 ~= 0 then
    core.fail("rotary positions: heads of size %d; a grid's two directions need a multiple of 4", size)
  end
  local base, quarter, rows, columns = options.base or 10000, size / 4, grid[1], grid[2]
  local function place(index, count)
    return options.centres and 2 * math.pi * (2 * (index + 0.5) / count - 1) or index
  end
  return turns_of(rows * columns, size / 2, options.dtype, function(token, k)
    local at = k < quarter and place(math.floor(token / columns), rows) or place(token % columns, columns)
    return at * base ^ (-(k % quarter) / quarter)
  end)
end

return M
