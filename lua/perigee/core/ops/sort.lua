--- Elements in order along a dimension: sort, argsort, topk, median. Places count from 0; NaN is larger than all
--- numbers; equals keep their order.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local sort_op = op.define {
  name = "sort", -- along the last dimension
  inputs = { "x" },
  outputs = { "y", "place" },
  results = 2,
  ints = { "descending" },
  shape = function(a) return { { a.x.shape, a.x.dtype }, { a.x.shape, "int64" } } end,
  vjp = function(n, dy)
    return { x = dy and ops.scatter_add(nil, -1, n.place, dy, { size = n.x.shape[#n.x.shape] }) }
  end,
  flops = function(a) return op.numel(a.x.shape) * math.log(math.max(a.x.shape[#a.x.shape], 2)) / math.log(2) end,
}

--- x in order along a dimension, the last one where none is named, and the places where the elements stood (int64).
--- Options may stand alone: x:sort { descending = true }.
---@param dim? integer
---@param options? boolean|{ descending?: boolean }  true: descending
local function sort(x, dim, options)
  op.expect("sort", x)
  if type(dim) == "table" and options == nil then dim, options = nil, dim end
  if type(options) == "boolean" then options = { descending = options } end
  local o = op.options("sort", options, { descending = false })
  dim = op.dimension("sort", dim or -1, x.shape)
  if dim == #x.shape then return sort_op(x, o) end
  local y, place = sort_op(ops.transpose(x, dim, -1), o)
  return ops.transpose(y, dim, -1), ops.transpose(place, dim, -1)
end

--- The places, from 0, of the elements in order.
---@param dim? integer
---@param options? boolean|{ descending?: boolean }
local function argsort(x, dim, options)
  local _, place = sort(x, dim, options)
  return place
end

--- The `count` largest elements along a dimension, largest first, and their places.
---@param count integer
---@param dim? integer
---@param options? { smallest?: boolean }  the smallest, smallest first
local function topk(x, count, dim, options)
  op.expect("topk", x)
  local o = op.options("topk", options, { smallest = false })
  dim = op.dimension("topk", dim or -1, x.shape)
  if type(count) ~= "number" or count < 0 or count > x.shape[dim] or count % 1 ~= 0 then
    op.fail("topk: %s of dimension %d of %s, which has %d", tostring(count), dim, op.shape_text(x.shape), x.shape[dim])
  end
  local y, place = sort(x, dim, not o.smallest)
  return ops.narrow(y, dim, 1, count), ops.narrow(place, dim, 1, count)
end

--- The element in the middle along a dimension, of two the smaller; of all elements where none is named. NaN if one of
--- them is.
---@param dim? integer
---@param options? boolean|{ keep?: boolean }
local function median(x, dim, options)
  op.expect("median", x)
  local keep, kept = op.keep("median", options), {}
  if dim then dim = op.dimension("median", dim, x.shape) end
  for d, size in ipairs(x.shape) do kept[d] = (not dim or d == dim) and 1 or size end
  if not dim then x, dim = ops.reshape(x, { -1 }), 1 end
  local count = x.shape[dim]
  if count == 0 then op.fail("median: %s has no element along dimension %d", op.shape_text(x.shape), dim) end
  local y = sort(x, dim)
  local middle = ops.select(y, dim, math.ceil(count / 2))
  if core.is_floating[x.dtype] then -- NaN stands last
    local last = ops.select(y, dim, count)
    middle = ops.where(ops.isnan(last), last, middle)
  end
  return keep and ops.reshape(middle, kept) or middle
end

return {
  sort = sort, argsort = argsort, topk = topk, median = median,
  methods = { sort = sort, argsort = argsort, topk = topk, median = median },
}
