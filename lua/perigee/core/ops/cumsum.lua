--- Running sums.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local cumsum_op
cumsum_op = op.define {
  name = "cumsum", -- along the last dimension
  inputs = { "x" },
  ints = { "reverse" },
  shape = function(a) return { { a.x.shape, core.is_floating[a.x.dtype] and a.x.dtype or "int64" } } end,
  vjp = function(n, dy) return { x = cumsum_op(dy, { reverse = n.reverse == 0 }) } end,
}

--- The sums of the elements up to each one along a dimension; { reverse = true }: from each one on. Integers add up in
--- int64.
---@param dim integer
---@param options? { reverse?: boolean }
local function cumsum(x, dim, options)
  op.expect("cumsum", x)
  local o = op.options("cumsum", options, { reverse = false })
  dim = op.dimension("cumsum", dim, x.shape)
  if dim == #x.shape then return cumsum_op(x, { reverse = o.reverse }) end
  return ops.transpose(cumsum_op(ops.transpose(x, dim, -1), { reverse = o.reverse }), dim, -1)
end

return { cumsum = cumsum, methods = { cumsum = cumsum } }
