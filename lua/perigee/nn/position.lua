--- Fixed position embeddings, computed once on the host in float64.
local tensor = require "perigee.core.tensor"

local M = {}

--- Sine and cosine of both coordinates of a grid of tokens (DiT, MAE): [rows·columns, width], row by row. The first half of
--- the width speaks of the column, the second of the row, each as sin ‖ cos at the frequencies 10000^(−j/(width/4)).
---@param width integer      a multiple of 4
---@param rows integer
---@param columns? integer   default: rows
---@return perigee.Tensor
function M.sincos_2d(width, rows, columns)
  columns = columns or rows
  if width % 4 ~= 0 then error(("sincos_2d: the width %d is not a multiple of 4"):format(width), 2) end
  local quarter, values = width / 4, {}
  for row = 0, rows - 1 do
    for column = 0, columns - 1 do
      local base = (row * columns + column) * width
      for half, coordinate in ipairs { column, row } do
        local from = base + (half - 1) * 2 * quarter
        for j = 0, quarter - 1 do
          local angle = coordinate * 10000 ^ (-j / quarter)
          values[from + j + 1] = math.sin(angle)
          values[from + quarter + j + 1] = math.cos(angle)
        end
      end
    end
  end
  return tensor.tensor(require("ffi").new("float[?]", #values, values), { rows * columns, width }, "float32")
end

return M
