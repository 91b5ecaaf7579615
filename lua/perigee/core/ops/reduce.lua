--- Sums, means and extremes over any dimensions, whether any or all elements are true, and the place of the largest
--- and the smallest.
local core = require "perigee.core.ffi"
local list = require "perigee.core.list"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

--- Shape with the reduced dimensions as 1, and without them.
local function shapes(x_shape, mask)
  local kept, short, bit = {}, {}, 1
  for d, size in ipairs(x_shape) do
    local reduced = math.floor(mask / bit) % 2 == 1
    kept[d] = reduced and 1 or size
    if not reduced then short[#short + 1] = size end
    bit = bit * 2
  end
  return kept, short
end

--- A result or its gradient, stretched over x again.
local function spread(n, y)
  local kept = shapes(n.x.shape, n.mask)
  return ops.expand(ops.reshape(y, kept), n.x.shape)
end

local function count(n) return op.numel(n.x.shape) / op.numel(n.y.shape) end

local gradient = {}
function gradient.sum(n, dy) return spread(n, dy) end
function gradient.mean(n, dy) return spread(n, ops.mul(dy, 1 / count(n))) end
function gradient.max(n, dy) -- equals share
  local chosen = ops.equal(n.x, spread(n, n.y))
  local many = ops.sum(ops.cast(chosen, dy.dtype), nil, { mask = n.mask, keep = n.keep == 1 })
  return ops.where(chosen, spread(n, ops.div(dy, many)), 0)
end
gradient.min = gradient.max

local defined = {}
for name, number in pairs(list.read("kernels/reduce/reduce.h", { "PG_REDUCE" }).number) do
  defined[name] = op.define {
    name = name,
    kernel = "reduce",
    inputs = { "x" },
    ints = { "operation", "mask" }, -- bit d - 1 of the mask: dimension d is reduced
    defaults = { operation = number },
    options = { "keep" },
    shape = function(a)
      local kept, short = shapes(a.x.shape, a.mask)
      local dtype = a.x.dtype
      if name == "sum" and not core.is_floating[dtype] then dtype = "int64" end
      return { { a.keep == 1 and kept or short, dtype } }
    end,
    vjp = function(n, dy) return { x = gradient[name](n, dy) } end,
    flops = function(a) return op.numel(a.x.shape) end,
  }
end

--- The bit mask of a dimension, a list of them, or all.
local function mask_of(name, x, dims)
  local mask = 0
  for d in pairs(op.reduced(name, x, dims)) do mask = mask + 2 ^ (d - 1) end
  return mask
end

local function reduction(name)
  --- dims: a dimension, a list of them, or nil for all; { keep = true }, or true, leaves them with size 1.
  return function(x, dims, options)
    op.expect(name, x)
    if name == "mean" and not core.is_floating[x.dtype] then x = ops.cast(x, "float32") end
    return defined[name](x, {
      mask = type(options) == "table" and options.mask or mask_of(name, x, dims), keep = op.keep(name, options),
    })
  end
end

local argmax_op = op.define {
  name = "argmax",
  inputs = { "x" },
  ints = { "dim" }, -- counted from 0
  options = { "keep" },
  shape = function(a)
    local kept, short = shapes(a.x.shape, 2 ^ a.dim)
    return { { a.keep == 1 and kept or short, "int64" } }
  end,
}

--- The place, counted from 0, of the largest element along a dimension; where none is named, among all elements in
--- row-major order.
---@param dim? integer
---@param options? boolean|{ keep?: boolean }
local function argmax(x, dim, options)
  op.expect("argmax", x)
  local keep = op.keep("argmax", options)
  if not core.is_floating[x.dtype] then x = ops.cast(x, "float64") end
  if dim == nil then
    local place = argmax_op(ops.reshape(x, { -1 }), { dim = 0, keep = false })
    if not keep then return place end
    local ones = {}
    for d = 1, #x.shape do ones[d] = 1 end
    return ops.reshape(place, ones)
  end
  return argmax_op(x, { dim = op.dimension("argmax", dim, x.shape) - 1, keep = keep })
end

--- The same of the smallest element.
---@param dim? integer
---@param options? boolean|{ keep?: boolean }
local function argmin(x, dim, options)
  op.expect("argmin", x)
  if not core.is_floating[x.dtype] then x = ops.cast(x, "float64") end
  return argmax(ops.neg(x), dim, options)
end

local exported = { argmax = argmax, argmin = argmin }
for name in pairs(defined) do exported[name] = reduction(name) end

--- uint8: 1 where any element along the dimensions is not 0.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean }
function exported.any(x, dims, options)
  op.expect("any", x)
  if op.numel(x.shape) == 0 then return ops.not_equal(exported.sum(ops.truth(x), dims, options), 0) end
  return exported.max(ops.truth(x), dims, options)
end

--- uint8: 1 where no element along the dimensions is 0.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean }
function exported.all(x, dims, options)
  op.expect("all", x)
  return ops.logical_not(exported.any(ops.equal(x, 0), dims, options))
end

exported.methods = {}
for name, body in pairs(exported) do
  if name ~= "methods" then exported.methods[name] = body end
end
return exported
