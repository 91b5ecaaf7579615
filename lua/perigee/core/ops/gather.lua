--- Reading and adding at indices along a dimension; embedding tables. Indices count from 0.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local function check_index(name, x, index, dim)
  if index.dtype ~= "int32" and index.dtype ~= "int64" then
    fail("%s: the index is %s; it must be int32 or int64", name, index.dtype)
  end
  local fits = #x.shape == #index.shape
  for d = 1, #x.shape do fits = fits and (d == dim or x.shape[d] == index.shape[d]) end
  if not fits then
    fail("%s: x is %s, index is %s; they may differ in dimension %d only", name, text(x.shape), text(index.shape), dim)
  end
end

local gather_op, scatter_op

gather_op = op.define {
  name = "gather",
  inputs = { "x", "index" },
  ints = { "dim" }, -- from 0
  strided = { index = true },
  shape = function(a)
    check_index("gather", a.x, a.index, a.dim + 1)
    return { { a.index.shape, a.x.dtype } }
  end,
  vjp = function(n, dy)
    return { x = scatter_op(nil, n.index, dy, { dim = n.dim, size = n.x.shape[n.dim + 1] }) }
  end,
}

scatter_op = op.define {
  name = "scatter_add",
  inputs = { "x?", "index", "source" },
  ints = { "dim" },
  options = { "size" }, -- of the result along dim
  strided = { index = true },
  inplace = { y = "x" },
  shape = function(a)
    op.expect_one_dtype("scatter_add", a, { "source", "x" })
    local shape = {}
    for d, size in ipairs(a.source.shape) do shape[d] = d == a.dim + 1 and a.size or size end
    local whole = a.x or { shape = shape }
    check_index("scatter_add", whole, a.index, a.dim + 1)
    if not op.same_shape(a.source.shape, a.index.shape) then
      fail("scatter_add: source is %s, index is %s; they must match", text(a.source.shape), text(a.index.shape))
    end
    return { { whole.shape, a.source.dtype } }
  end,
  vjp = function(n, dy)
    return { x = n.x and dy or nil, source = gather_op(dy, n.index, { dim = n.dim }) }
  end,
}

--- out[..., j, ...] = x[..., index[..., j, ...], ...] along `dim`. index: as many dimensions as x, of the same sizes
--- but along `dim`; an expanded one picks whole rows.
local function gather(x, dim, index)
  if not (op.is_operand(x) and op.is_operand(index)) then fail "gather: expected a tensor, a dimension and an index" end
  return gather_op(x, index, { dim = op.dimension("gather", dim, x.shape) - 1 })
end

--- x with source[..., j, ...] added at index[..., j, ...] along `dim`. x may be nil: zeros, options.size along dim.
---@param options? { size?: integer }
local function scatter_add(x, dim, index, source, options)
  local o = op.options("scatter_add", options, { size = false })
  op.expect("scatter_add", source)
  if x then op.expect("scatter_add", x) end
  if not x and not o.size then fail "scatter_add: x is nil, so options.size must say the result's size along dim" end
  dim = op.dimension("scatter_add", dim, source.shape)
  return scatter_op(x, index, source, { dim = dim - 1, size = o.size or x.shape[dim] })
end

--- Entries of a dimension by an index tensor [K], from 0; some may come more than once.
---@param dim integer
local function index_select(x, dim, index)
  if not (op.is_operand(x) and op.is_operand(index)) then
    fail "index_select: expected a tensor, a dimension and an index"
  end
  dim = op.dimension("index_select", dim, x.shape)
  if #index.shape ~= 1 then fail("index_select: the index is %s; it must have one dimension", text(index.shape)) end
  local thin, full = {}, {}
  for d, size in ipairs(x.shape) do thin[d], full[d] = 1, size end
  thin[dim], full[dim] = index.shape[1], index.shape[1]
  return gather_op(x, ops.expand(ops.reshape(index, thin), full), { dim = dim - 1 })
end

--- Rows of a table [V,D] by an index of any shape: [..., D].
local function embedding(table, index)
  if not (op.is_operand(table) and op.is_operand(index)) then fail "embedding: expected a table and an index" end
  if #table.shape ~= 2 then fail("embedding: the table is %s; it must be [rows,width]", text(table.shape)) end
  local width, shape = table.shape[2], {}
  for d, size in ipairs(index.shape) do shape[d] = size end
  shape[#shape + 1] = width
  local rows = ops.reshape(index, { op.numel(index.shape), 1 })
  local picked = gather_op(table, ops.expand(rows, { rows.shape[1], width }), { dim = 0 })
  return ops.reshape(picked, shape)
end

return {
  gather = gather, scatter_add = scatter_add, index_select = index_select, embedding = embedding,
  methods = { gather = gather, scatter_add = scatter_add, index_select = index_select },
}
