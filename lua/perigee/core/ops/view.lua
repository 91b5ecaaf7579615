--- Views: other layouts of the same storage. Nothing is copied, except by reshape where strides leave no other way.
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local reshape_view = op.define_view {
  name = "reshape",
  options = { "shape" },
  layout = function(from, a) return layout.reshape(from, a.shape) end,
  vjp = function(n, dy) return { x = ops.reshape(dy, n.x.shape) } end,
}

--- The same elements under another shape; one size may be -1 and is then found.
local function reshape(x, shape)
  local known, open, copy = 1, nil, {}
  for d, size in ipairs(shape) do
    copy[d] = size
    if size == -1 then
      if open then fail("reshape: two sizes of %s are -1", text(shape)) end
      open = d
    else known = known * size end
  end
  local n = op.numel(x.shape)
  if open and known > 0 then copy[open] = n / known end
  if op.numel(copy) ~= n or (open and copy[open] % 1 ~= 0) then
    fail("reshape: %s (%d elements) into %s", text(x.shape), n, text(shape))
  end
  if layout.same_shape(x.shape, copy) then return x end
  return reshape_view(x, { shape = copy })
end

local permute_view = op.define_view {
  name = "permute",
  options = { "order" },
  layout = function(from, a) return layout.permute(from, a.order) end,
  vjp = function(n, dy)
    local inverse = {}
    for to, from in ipairs(n.order) do inverse[from] = to end
    return { x = ops.permute(dy, inverse) }
  end,
}

--- Dimensions in another order: the result's d-th dimension is x's order[d]-th.
local function permute(x, order)
  local seen = {}
  for d, from in ipairs(order) do
    order[d] = op.dimension("permute", from, x.shape)
    seen[order[d]] = true
  end
  if #order ~= #x.shape or #seen ~= #x.shape then
    fail("permute: order %s of a tensor %s; every dimension once", text(order), text(x.shape))
  end
  return permute_view(x, { order = order })
end

local function transpose(x, a, b)
  a, b = op.dimension("transpose", a or -2, x.shape), op.dimension("transpose", b or -1, x.shape)
  local order = {}
  for d = 1, #x.shape do order[d] = d end
  order[a], order[b] = b, a
  return permute(x, order)
end

local narrow_view = op.define_view {
  name = "narrow",
  options = { "dim", "start", "length" },
  layout = function(from, a) return layout.narrow(from, a.dim, a.start, a.length) end,
  piece = function(n) return n.dim, n.start, n.length end,
  vjp = function(n, dy)
    return { x = ops.narrow_backward(dy, { dim = n.dim, start = n.start, size = n.x.shape[n.dim] }) }
  end,
}

--- `length` entries of a dimension, from `start` on (counted from 1).
local function narrow(x, dim, start, length)
  dim = op.dimension("narrow", dim, x.shape)
  if start < 1 or length < 0 or start + length - 1 > x.shape[dim] then
    fail("narrow: entries %d to %d of dimension %d of %s", start, start + length - 1, dim, text(x.shape))
  end
  return narrow_view(x, { dim = dim, start = start, length = length })
end

--- One entry of a dimension; the dimension goes.
local function select_entry(x, dim, index)
  dim = op.dimension("select", dim, x.shape)
  local shape = {}
  for d, size in ipairs(x.shape) do
    if d ~= dim then shape[#shape + 1] = size end
  end
  return reshape(narrow(x, dim, index, 1), shape)
end

--- Equal parts along a dimension, in a list.
local function chunk(x, count, dim)
  dim = op.dimension("chunk", dim or -1, x.shape)
  if x.shape[dim] % count ~= 0 then
    fail("chunk: dimension %d of %s does not divide into %d", dim, text(x.shape), count)
  end
  local parts, size = {}, x.shape[dim] / count
  for k = 1, count do parts[k] = narrow(x, dim, (k - 1) * size + 1, size) end
  return parts
end

local expand_view = op.define_view {
  name = "expand",
  options = { "shape" },
  layout = function(from, a) return layout.expand(from, a.shape) end,
  vjp = function(n, dy) return { x = op.unbroadcast(dy, n.x.shape) } end,
}

--- Stretches dimensions of size 1, and adds leading ones, without a copy.
local function expand(x, shape)
  local common = layout.broadcast(x.shape, shape)
  if not common or not layout.same_shape(common, shape) then
    fail("expand: %s does not stretch to %s", text(x.shape), text(shape))
  end
  return expand_view(x, { shape = common })
end

local function unsqueeze(x, dim)
  local shape, n = {}, #x.shape
  dim = dim < 0 and n + 2 + dim or dim
  for d = 1, n do shape[d] = x.shape[d] end
  table.insert(shape, dim, 1)
  return reshape(x, shape)
end

local function squeeze(x, dim)
  local shape = {}
  dim = dim and op.dimension("squeeze", dim, x.shape)
  for d, size in ipairs(x.shape) do
    if size ~= 1 or (dim and d ~= dim) then shape[#shape + 1] = size end
  end
  return reshape(x, shape)
end

--- Joins the dimensions from `first` to `last` into one.
local function flatten(x, first, last)
  first, last = op.dimension("flatten", first or 1, x.shape), op.dimension("flatten", last or -1, x.shape)
  local shape, joined = {}, 1
  for d, size in ipairs(x.shape) do
    if d < first or d > last then shape[#shape + 1] = size
    else
      joined = joined * size
      if d == last then shape[#shape + 1] = joined end
    end
  end
  return reshape(x, shape)
end

--- Cuts a gradient's way: the value passes, what led to it does not.
local stop_view = op.define_view {
  name = "stop_gradient",
  cuts_gradient = true,
  layout = function(from) return from end,
  vjp = function() return {} end,
}
local function stop_gradient(x) return stop_view(x) end

local views = {
  reshape = reshape, permute = permute, transpose = transpose, narrow = narrow, select = select_entry, chunk = chunk,
  expand = expand, unsqueeze = unsqueeze, squeeze = squeeze, flatten = flatten, stop_gradient = stop_gradient,
}
local exported = { methods = views }
for name, body in pairs(views) do exported[name] = body end
return exported
