--- Views: other layouts of the same storage. Nothing is copied, except by reshape where strides leave no other way.
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local sizes = require "perigee.core.sizes"

local fail, text = op.fail, op.shape_text

local reshape_view = op.define_view {
  name = "reshape",
  options = { "shape" },
  layout = function(from, a) return layout.reshape(from, a.shape) end,
  vjp = function(n, dy) return { x = ops.reshape(dy, n.x.shape) } end,
}

--- A list of sizes with the one that is -1 found.
local function filled(name, x, shape)
  local known, open = 1, nil
  for d = 1, #shape do
    if shape[d] == -1 then
      if open then fail("%s: two sizes of %s are -1", name, text(shape)) end
      open = d
    else known = known * shape[d] end
  end
  local n = op.numel(x.shape)
  local found = open and known > 0 and n / known or -1
  if (open and (found % 1 ~= 0 or found < 0)) or (not open and known ~= n) then
    fail("%s: %s (%d elements) into %s", name, text(x.shape), n, text(shape))
  end
  if open then shape[open] = found end
  return shape
end

--- The same elements under another shape, x:reshape(4, -1) or x:reshape { 4, -1 }; one size may be -1 and is then
--- found. A copy is made only where x's strides leave no other way.
local function reshape(x, first, b, c, d, e, f, g, h)
  op.expect("reshape", x)
  local shape = filled("reshape", x, sizes("reshape", first, b, c, d, e, f, g, h))
  if layout.same_shape(x.shape, shape) then return x end
  return reshape_view(x, { shape = shape })
end

--- reshape, but an error where that needs a copy.
local function view(x, first, b, c, d, e, f, g, h)
  op.expect("view", x)
  local shape = filled("view", x, sizes("view", first, b, c, d, e, f, g, h))
  if not layout.reshape({ shape = x.shape, strides = x.strides, offset = 0 }, shape) then
    fail("view: %s with strides %s does not become %s without a copy; write x:reshape", text(x.shape), text(x.strides),
      text(shape))
  end
  return reshape(x, shape)
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
local function permute(x, first, b, c, d, e, f, g, h)
  op.expect("permute", x)
  local order, seen = sizes("permute", first, b, c, d, e, f, g, h), {}
  for place, from in ipairs(order) do
    order[place] = op.dimension("permute", from, x.shape)
    seen[order[place]] = true
  end
  if #order ~= #x.shape or #seen ~= #x.shape then
    fail("permute: order %s of a tensor %s; every dimension once", text(order), text(x.shape))
  end
  return permute_view(x, { order = order })
end

--- Two dimensions swapped; the last two where none is named.
local function transpose(x, a, b)
  op.expect("transpose", x)
  a, b = op.dimension("transpose", a or -2, x.shape), op.dimension("transpose", b or -1, x.shape)
  local order = {}
  for d = 1, #x.shape do order[d] = d end
  order[a], order[b] = b, a
  return permute_view(x, { order = order })
end

--- The transpose of a matrix; a vector stays as it is.
local function t(x)
  op.expect("t", x)
  if #x.shape > 2 then fail("t: x is %s; name two dimensions, x:transpose(1, 2)", text(x.shape)) end
  return #x.shape == 2 and transpose(x, 1, 2) or x
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

--- `length` entries of a dimension, from `start` on: from 1, or from the end if negative.
---@param dim integer
---@param start integer
---@param length integer
local function narrow(x, dim, start, length)
  op.expect("narrow", x)
  dim = op.dimension("narrow", dim, x.shape)
  local size = x.shape[dim]
  if type(start) ~= "number" or type(length) ~= "number" then
    fail("narrow: expected x:narrow(dim, start, length), three whole numbers")
  end
  local first = start < 0 and size + 1 + start or start
  if first < 1 or length < 0 or first + length - 1 > size or first % 1 ~= 0 or length % 1 ~= 0 then
    fail("narrow: %s entries from %s of dimension %d of %s, which has 1 to %d", tostring(length), tostring(start), dim,
      text(x.shape), size)
  end
  return narrow_view(x, { dim = dim, start = first, length = length })
end

--- One entry of a dimension, from 1, or from the end if negative; the dimension goes.
---@param dim integer
---@param index integer
local function select_entry(x, dim, index)
  op.expect("select", x)
  dim = op.dimension("select", dim, x.shape)
  local size = x.shape[dim]
  local position = type(index) == "number" and index < 0 and size + 1 + index or index
  if type(position) ~= "number" or position < 1 or position > size or position % 1 ~= 0 then
    fail("select: entry %s of dimension %d of %s, which has 1 to %d%s", tostring(index), dim, text(x.shape), size,
      index == 0 and "; numbers from tensors (argmax, labels) count from 0: add 1" or "")
  end
  local shape = {}
  for d, each in ipairs(x.shape) do
    if d ~= dim then shape[#shape + 1] = each end
  end
  return reshape(narrow_view(x, { dim = dim, start = position, length = 1 }), shape)
end

local step_view = op.define_view {
  name = "step",
  options = { "dim", "step" },
  layout = function(from, a) return layout.step(from, a.dim, a.step) end,
  vjp = function(n, dy) -- zeros between the entries, as a dimension of its own
    local dim, size, shape = n.dim, n.x.shape[n.dim], { unpack(n.x.shape) }
    local count = dy.shape[dim]
    shape[dim] = count * n.step
    local spread = ops.narrow_backward(ops.unsqueeze(dy, dim + 1), { dim = dim + 1, start = 1, size = n.step })
    spread = ops.reshape(spread, shape)
    if shape[dim] > size then return { x = ops.narrow(spread, dim, 1, size) } end
    return { x = ops.narrow_backward(spread, { dim = dim, start = 1, size = size }) }
  end,
}

--- Every `distance`-th entry of a dimension, from the first on.
---@param dim integer
---@param distance integer
local function step(x, dim, distance)
  op.expect("step", x)
  dim = op.dimension("step", dim, x.shape)
  if type(distance) ~= "number" or distance < 1 or distance % 1 ~= 0 then
    fail("step: %s; expected a whole number of at least 1", tostring(distance))
  end
  if distance == 1 or x.shape[dim] == 0 then return x end
  return step_view(x, { dim = dim, step = distance })
end

--- Equal parts along a dimension (the last one, if none is named), in a list.
---@param count integer
---@param dim? integer
---@return table
local function chunk(x, count, dim)
  op.expect("chunk", x)
  dim = op.dimension("chunk", dim or -1, x.shape)
  if type(count) ~= "number" or count < 1 or x.shape[dim] % count ~= 0 then
    fail("chunk: dimension %d of %s does not divide into %s", dim, text(x.shape), tostring(count))
  end
  local parts, size = {}, x.shape[dim] / count
  for k = 1, count do parts[k] = narrow(x, dim, (k - 1) * size + 1, size) end
  return parts
end

--- Parts of given lengths along a dimension (the first one, if none is named), in a list; one number: parts of that
--- length, the last one of what is left.
---@param lengths integer|integer[]
---@param dim? integer
---@return table
local function split(x, lengths, dim)
  op.expect("split", x)
  dim = op.dimension("split", dim or 1, x.shape)
  local size, list, sum = x.shape[dim], {}, 0
  if type(lengths) == "number" and lengths >= 1 and lengths % 1 == 0 then
    for start = 0, math.max(size - 1, 0), lengths do list[#list + 1] = math.min(lengths, size - start) end
  else
    if type(lengths) == "number" then fail("split: parts of length %g; expected a whole number from 1", lengths) end
    list = sizes("split", lengths)
  end
  for _, length in ipairs(list) do sum = sum + length end
  if sum ~= size then
    fail("split: parts %s of dimension %d of %s; they must add up to %d", text(list), dim, text(x.shape), size)
  end
  local parts, start = {}, 1
  for k, length in ipairs(list) do
    parts[k] = narrow(x, dim, start, length)
    start = start + length
  end
  return parts
end

--- The entries of a dimension (the first one, if none is named), in a list: `for i, row in ipairs(x:unbind()) do`.
---@param dim? integer
---@return table
local function unbind(x, dim)
  op.expect("unbind", x)
  dim = op.dimension("unbind", dim or 1, x.shape)
  local list = {}
  for k = 1, x.shape[dim] do list[k] = select_entry(x, dim, k) end
  return list
end

--- A size as a number, or all of them in a list of its own.
---@param dim? integer
local function size_of(x, dim)
  if dim then return x.shape[op.dimension("size", dim, x.shape)] end
  return { unpack(x.shape) }
end

local expand_view = op.define_view {
  name = "expand",
  options = { "shape" },
  layout = function(from, a) return layout.expand(from, a.shape) end,
  vjp = function(n, dy) return { x = op.unbroadcast(dy, n.x.shape) } end,
}

--- Stretches dimensions of size 1, and adds leading ones, without a copy. -1 leaves a size as it is.
local function expand(x, first, b, c, d, e, f, g, h)
  op.expect("expand", x)
  local shape = sizes("expand", first, b, c, d, e, f, g, h)
  local shift = #shape - #x.shape
  for place = 1, #shape do
    if shape[place] == -1 then
      shape[place] = x.shape[place - shift]
        or fail("expand: dimension %d of %s is new; it needs a size", place, text(shape))
    end
  end
  local common = layout.broadcast(x.shape, shape)
  if not common or not layout.same_shape(common, shape) then
    fail("expand: %s does not stretch to %s", text(x.shape), text(shape))
  end
  return expand_view(x, { shape = common })
end

--- A new dimension of size 1 at place `dim`.
---@param dim integer
local function unsqueeze(x, dim)
  op.expect("unsqueeze", x)
  local shape, n = {}, #x.shape
  local asked = dim
  if type(dim) == "number" and dim < 0 then dim = n + 2 + dim end
  if type(dim) ~= "number" or dim < 1 or dim > n + 1 or dim % 1 ~= 0 then
    fail("unsqueeze: dimension %s; %s has places 1 to %d for a new one", tostring(asked), text(x.shape), n + 1)
  end
  for d = 1, n do shape[d] = x.shape[d] end
  table.insert(shape, dim, 1)
  return reshape(x, shape)
end

--- Without dimensions of size 1, or without that one.
---@param dim? integer
local function squeeze(x, dim)
  op.expect("squeeze", x)
  local shape = {}
  dim = dim and op.dimension("squeeze", dim, x.shape)
  for d, size in ipairs(x.shape) do
    if size ~= 1 or (dim and d ~= dim) then shape[#shape + 1] = size end
  end
  return reshape(x, shape)
end

--- Joins the dimensions from `first` to `last` into one.
local function flatten(x, first, last)
  op.expect("flatten", x)
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

--- The same value under a name of its own: its gradient is that of what reads it here, and not elsewhere.
local branch_view = op.define_view {
  name = "branch",
  layout = function(from) return from end,
  vjp = function(_, dy) return { x = dy } end,
}
local function branch(x) return branch_view(x) end

local exported = {
  reshape = reshape, view = view, permute = permute, transpose = transpose, t = t, narrow = narrow, step = step,
  select = select_entry, chunk = chunk, split = split, unbind = unbind, expand = expand, unsqueeze = unsqueeze,
  squeeze = squeeze, flatten = flatten, stop_gradient = stop_gradient, detach = stop_gradient,
}
local methods = { size = size_of }
for name, body in pairs(exported) do methods[name] = body end
exported.methods, exported.branch = methods, branch
return exported
