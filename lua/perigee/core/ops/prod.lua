--- Products over any dimensions.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local prod_op

--- The products of all elements of a row but one, in its place; where there are zeros too.
local function products_of_others(x)
  local is_zero = ops.equal(x, 0)
  local zeros = ops.sum(ops.cast(is_zero, x.dtype), 2, true)
  local product = ops.unsqueeze(prod_op(ops.where(is_zero, 1, x)), 2) -- of those that are not 0
  local without = ops.where(ops.equal(zeros, 0), ops.div(product, x), 0)
  return ops.where(ops.logical_and(is_zero, ops.equal(zeros, 1)), product, without)
end

prod_op = op.define {
  name = "prod",
  inputs = { "x" },
  shape = function(a)
    return { { { a.x.shape[1] }, core.is_floating[a.x.dtype] and a.x.dtype or "int64" } }
  end,
  vjp = function(n, dy) return { x = ops.mul(ops.unsqueeze(dy, 2), products_of_others(n.x)) } end,
  flops = function(a) return op.numel(a.x.shape) end,
}

--- The product over a dimension, several, or all where none is named. Integers multiply in int64.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean }
local function prod(x, dims, options)
  op.expect("prod", x)
  local order, kept, short, reduced = {}, {}, {}, op.reduced("prod", x, dims)
  local rows, length = 1, 1
  for d, size in ipairs(x.shape) do
    kept[d] = reduced[d] and 1 or size
    if reduced[d] then length = length * size
    else order[#order + 1], short[#short + 1], rows = d, size, rows * size end
  end
  for d = 1, #x.shape do
    if reduced[d] then order[#order + 1] = d end
  end
  local y = prod_op(ops.reshape(ops.permute(x, order), { rows, length }))
  return ops.reshape(y, op.keep("prod", options) and kept or short)
end

return { prod = prod, methods = { prod = prod } }
