--- The lower and the upper triangle of matrices, and the matrix with ones on its diagonal.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

--- uint8 [rows,columns]: `compare` of an element's column and its row plus `diagonal`.
local function mask_of(name, compare, x, diagonal)
  op.expect(name, x)
  if diagonal ~= nil and (type(diagonal) ~= "number" or diagonal % 1 ~= 0) then
    op.fail("%s: the diagonal is %s; expected a whole number", name, tostring(diagonal))
  end
  local n = #x.shape
  if n < 2 then op.fail("%s: x is %s; it needs two dimensions or more", name, op.shape_text(x.shape)) end
  local row = ops.arange_like(x, x.shape[n - 1], { dtype = "int32", start = diagonal or 0 })
  local column = ops.arange_like(x, x.shape[n], { dtype = "int32" })
  return ops[compare](column, ops.unsqueeze(row, 2))
end

--- x [...,M,N] where column <= row + diagonal, 0 elsewhere.
---@param diagonal? integer
local function tril(x, diagonal) return ops.where(mask_of("tril", "less_equal", x, diagonal), x, 0) end

--- x [...,M,N] where column >= row + diagonal, 0 elsewhere.
---@param diagonal? integer
local function triu(x, diagonal) return ops.where(mask_of("triu", "greater_equal", x, diagonal), x, 0) end

return { tril = tril, triu = triu, methods = { tril = tril, triu = triu } }
