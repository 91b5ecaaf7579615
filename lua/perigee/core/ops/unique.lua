--- The distinct elements of a tensor. How many there are depends on the numbers, so: not in a trace.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"

local fail = op.fail

--- The distinct elements of x in ascending order, [K]; then, where asked for, int64 of x's shape: which of them each
--- element is, from 0; and int64 [K]: how often each occurs. Every NaN is an element of its own.
---@param options? { inverse?: boolean, counts?: boolean }
---@return perigee.Tensor, perigee.Tensor?, perigee.Tensor?  in this order; those not asked for are left out
local function unique(x, options)
  op.expect("unique", x)
  if program.of(x) then fail "unique: the number of distinct elements is not known in a trace" end
  local o = op.options("unique", options, { inverse = false, counts = false })
  local sorted, place = ops.sort(ops.reshape(x, { -1 }))
  local n = sorted.shape[1]
  local begins = ops.ones_like(sorted, { dtype = "uint8" }) -- 1 where an element differs from the one before it
  if n > 1 then begins[{ { 2, n } }] = ops.not_equal(sorted[{ { 2, n } }], sorted[{ { 1, n - 1 } }]) end
  local firsts = ops.reshape(ops.nonzero(begins), { -1 })
  local results = { ops.index_select(sorted, 1, firsts) }
  if o.inverse then
    local group = ops.cumsum(begins, 1) - 1
    results[2] = ops.reshape(ops.gather(group, 1, ops.argsort(place)), x.shape)
  end
  if o.counts then
    local ends = ops.concat({ firsts, ops.full_like(firsts, n, { shape = { 1 } }) })
    results[#results + 1] = ends[{ { 2, -1 } }] - ends[{ { 1, -2 } }]
  end
  return unpack(results)
end

return { unique = unique, methods = { unique = unique } }
