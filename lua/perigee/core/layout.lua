--- Layouts: how a view walks its storage. Pure functions over { shape, strides, offset }, in elements; used alike for
--- tensors (storage in memory) and for symbolic values (storage in a plan).
local M = {}

function M.numel(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

function M.packed(shape)
  local strides, stride = {}, 1
  for d = #shape, 1, -1 do
    strides[d] = stride
    stride = stride * shape[d]
  end
  return strides
end

function M.is_contiguous(layout)
  local expected = 1
  for d = #layout.shape, 1, -1 do
    if layout.shape[d] ~= 1 and layout.strides[d] ~= expected then return false end
    expected = expected * layout.shape[d]
  end
  return true
end

function M.same_shape(a, b)
  if #a ~= #b then return false end
  for d = 1, #a do
    if a[d] ~= b[d] then return false end
  end
  return true
end

--- The same elements under another shape, or nil where that needs a copy.
function M.reshape(layout, shape)
  if M.is_contiguous(layout) or M.numel(layout.shape) == 0 then
    return { shape = shape, strides = M.packed(shape), offset = layout.offset }
  end
  -- Match groups of old dimensions to groups of new ones; inside a group the old strides must chain.
  local strides, old, new = {}, 1, 1
  local from, to = layout.shape, shape
  while old <= #from or new <= #to do
    local old_size, new_size = from[old] or 1, to[new] or 1
    local old_last, new_last = old, new
    while old_size ~= new_size do
      if old_size < new_size then
        old_last = old_last + 1
        old_size = old_size * from[old_last]
      else
        new_last = new_last + 1
        new_size = new_size * to[new_last]
      end
    end
    for d = old, math.min(old_last, #from) - 1 do
      if from[d] ~= 1 and layout.strides[d] ~= layout.strides[d + 1] * from[d + 1] then return nil end
    end
    local stride = layout.strides[math.min(old_last, #from)] or 1
    for d = math.min(new_last, #to), new, -1 do
      strides[d] = stride
      stride = stride * to[d]
    end
    old, new = old_last + 1, new_last + 1
  end
  return { shape = shape, strides = strides, offset = layout.offset }
end

function M.permute(layout, order)
  local shape, strides = {}, {}
  for d, from in ipairs(order) do
    shape[d], strides[d] = layout.shape[from], layout.strides[from]
  end
  return { shape = shape, strides = strides, offset = layout.offset }
end

function M.narrow(layout, dim, start, length)
  local shape, strides = {}, {}
  for d = 1, #layout.shape do shape[d], strides[d] = layout.shape[d], layout.strides[d] end
  shape[dim] = length
  return { shape = shape, strides = strides, offset = layout.offset + (start - 1) * strides[dim] }
end

--- Every step-th entry of a dimension, from the first on.
function M.step(layout, dim, step)
  local shape, strides = {}, {}
  for d = 1, #layout.shape do shape[d], strides[d] = layout.shape[d], layout.strides[d] end
  shape[dim], strides[dim] = math.ceil(shape[dim] / step), strides[dim] * step
  return { shape = shape, strides = strides, offset = layout.offset }
end

--- The diagonal of two dimensions, as the last one.
function M.diagonal(layout, first, second)
  local shape, strides = {}, {}
  for d, size in ipairs(layout.shape) do
    if d ~= first and d ~= second then shape[#shape + 1], strides[#strides + 1] = size, layout.strides[d] end
  end
  shape[#shape + 1] = math.min(layout.shape[first], layout.shape[second])
  strides[#strides + 1] = layout.strides[first] + layout.strides[second]
  return { shape = shape, strides = strides, offset = layout.offset }
end

--- Broadcasts to `shape` (numpy's rule: dimensions match from the end, size 1 stretches).
function M.expand(layout, shape)
  local strides, shift = {}, #shape - #layout.shape
  for d = 1, #shape do
    local size = d > shift and layout.shape[d - shift] or 1
    strides[d] = (size == 1 and shape[d] ~= 1 or d <= shift) and 0 or layout.strides[d - shift]
  end
  return { shape = shape, strides = strides, offset = layout.offset }
end

--- The common shape of two operands under broadcasting, or nil.
function M.broadcast(a, b)
  local shape, n = {}, math.max(#a, #b)
  for d = 0, n - 1 do
    local x, y = a[#a - d] or 1, b[#b - d] or 1
    if x ~= y and x ~= 1 and y ~= 1 then return nil end
    shape[n - d] = x == 1 and y or x
  end
  return shape
end

return M
