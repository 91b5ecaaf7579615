--- Position embeddings.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local M = {}

--- Fixed sinusoids of a grid's columns and rows, [1,rows·columns,width] in float32: with frequencies
--- 10000^(−j/(width/4)), the four quarters of the width are sin and cos of the column, then of the row; with
--- `rows_first`, of the row, then of the column.
---@param rows_first? boolean
function M.sincos_2d(width, rows, columns, rows_first)
  if width % 4 ~= 0 then core.fail("position embedding: width %d is not a multiple of 4", width) end
  local quarter = width / 4
  local of_column, of_row = rows_first and 2 * quarter or 0, rows_first and 0 or 2 * quarter
  local values = ffi.new("float[?]", rows * columns * width)
  for j = 0, quarter - 1 do
    local frequency = 10000 ^ (-j / quarter)
    for row = 0, rows - 1 do
      local sin_row, cos_row = math.sin(row * frequency), math.cos(row * frequency)
      for column = 0, columns - 1 do
        local at = (row * columns + column) * width + j
        local c = at + of_column
        values[c], values[c + quarter] = math.sin(column * frequency), math.cos(column * frequency)
        values[at + of_row], values[at + of_row + quarter] = sin_row, cos_row
      end
    end
  end
  return tensor.tensor(values, { 1, rows * columns, width }, "float32")
end

return M
