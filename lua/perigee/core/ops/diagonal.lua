--- Diagonals of matrices, as views.
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local diagonal_view = op.define_view {
  name = "diagonal",
  options = { "first", "second" },
  layout = function(from, a) return layout.diagonal(from, a.first, a.second) end,
  vjp = function(n, dy)
    local rows, columns, dims = n.x.shape[n.first], n.x.shape[n.second], #n.x.shape
    if dy.shape[#dy.shape] < rows then
      dy = ops.narrow_backward(dy, { dim = #dy.shape, start = 1, size = rows })
    end
    local row = ops.arange_like(dy, rows, { dtype = "int32" })
    local column = ops.arange_like(dy, columns, { dtype = "int32" })
    local dx = ops.where(ops.equal(ops.unsqueeze(row, 2), column), ops.unsqueeze(dy, -1), 0)
    local order, rest = {}, 0
    for d = 1, dims do
      if d == n.first then order[d] = dims - 1
      elseif d == n.second then order[d] = dims
      else
        rest = rest + 1
        order[d] = rest
      end
    end
    return { x = ops.permute(dx, order) }
  end,
}

--- The diagonal of two dimensions, the last two where none are named; it becomes the last dimension.
---@param first? integer
---@param second? integer
local function diagonal(x, first, second)
  op.expect("diagonal", x)
  if #x.shape < 2 then op.fail("diagonal: x is %s; it needs two dimensions or more", op.shape_text(x.shape)) end
  first, second = op.dimension("diagonal", first or -2, x.shape), op.dimension("diagonal", second or -1, x.shape)
  if first == second then op.fail("diagonal: dimension %d twice", first) end
  return diagonal_view(x, { first = first, second = second })
end

return { diagonal = diagonal, methods = { diagonal = diagonal } }
