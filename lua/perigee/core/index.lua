--- Indexing: x[key] and x[key] = value. A key is
---
---   a number                    one entry of the first dimension, from 1, or from the end if negative: x[1], x[-1]
---   a list, an item a dimension a number; {} for all; { from, to } or { from, to, step }, both ends included; or one
---                               tensor of indices: x[{ 2, {1, 3} }], x[{ {}, {1, -1, 2} }]
---   a mask                      uint8, of the shape of x's first dimensions: what stands where it isn't 0, in order
---   a tensor of indices         int32 or int64, from 0 as all numbers in tensors: x[index][i] = x[index[i] + 1]
---
--- Numbers, lists of ranges and {} look at x's own storage, so writing to x[1] changes x; masks and index tensors copy.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local fail, text = core.fail, core.shape_text
local M = {}

--- A key as one would write it.
local function shown(key)
  if op.is_operand(key) then return ("a %s %s"):format(key.dtype, text(key.shape)) end
  if type(key) ~= "table" then return tostring(key) end
  local parts = {}
  for k = 1, table.maxn(key) do parts[k] = shown(key[k]) end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function whole(i) return type(i) == "number" and i % 1 == 0 end

--- Fails for an entry `i`, or a range, outside of a dimension.
local function outside(x, key, dim, i)
  local n = x.shape[dim]
  fail("x[%s]: dimension %d of %s has entries %s%s", shown(key), dim, text(x.shape),
    n == 0 and "none" or ("1 to %d, or -%d to -1 from the end"):format(n, n),
    i == 0 and "; numbers from argmax, labels and other tensors count from 0: add 1, or give the tensor itself" or "")
end

local function entry(x, key, dim, i)
  local n = x.shape[dim]
  local position = i < 0 and n + 1 + i or i
  if i % 1 ~= 0 then fail("x[%s]: an entry is a whole number, not %g", shown(key), i) end
  if position < 1 or position > n then outside(x, key, dim, i) end
  return ops.select(x, dim, position)
end

local function range(x, key, dim, item)
  local first, last, step = item[1], item[2], item[3] or 1
  if #item == 1 and whole(first) then
    fail("x[%s]: a range is { from, to }: { %d, %d } keeps one entry, { %d, -1 } goes to the end", shown(key), first,
      first, first)
  end
  if not (whole(first) and whole(last) and whole(step)) or #item > 3 then
    fail("x[%s]: a range is { from, to } or { from, to, step }, whole numbers", shown(key))
  end
  if step < 1 then fail("x[%s]: a range's step is at least 1; x:flip(%d) turns a dimension round", shown(key), dim) end
  local n = x.shape[dim]
  first, last = first < 0 and n + 1 + first or first, last < 0 and n + 1 + last or last
  if first < 1 or last > n or last < first - 1 then outside(x, key, dim) end
  local part = ops.narrow(x, dim, first, last - first + 1)
  return step > 1 and ops.step(part, dim, step) or part
end

--- Positions, from 0, that an index tensor or a mask of one dimension stands for, in one dimension.
local function positions(x, key, index)
  if index.dtype == "int32" or index.dtype == "int64" then return ops.reshape(index, { -1 }) end
  if index.dtype ~= "uint8" then
    fail("x[%s]: indices are int32 or int64, masks uint8, not %s", shown(key), index.dtype)
  end
  if program.of(x) or program.of(index) then
    fail("x[%s]: how many elements a mask picks is not known in a trace; write ops.where(mask, x, 0) or "
      .. "x:masked_fill(mask, 0)", shown(key))
  end
  return ops.reshape(ops.nonzero(ops.reshape(index, { -1 })), { -1 })
end

--- Fails where a mask does not have the sizes of x's first dimensions.
local function check_cover(x, key)
  for d, size in ipairs(key.shape) do
    if x.shape[d] ~= size then
      fail("x[%s]: the mask does not have the sizes of the first dimensions of %s", shown(key), text(x.shape))
    end
  end
end

--- The first dimensions of x, which a mask covers, joined to one.
local function under(x, mask)
  local shape = { op.numel(mask.shape) }
  for d = #mask.shape + 1, #x.shape do shape[#shape + 1] = x.shape[d] end
  return ops.reshape(x, shape)
end

local function by_tensor(x, key)
  local places = positions(x, key, key)
  if key.dtype == "uint8" then
    check_cover(x, key)
    return ops.index_select(under(x, key), 1, places)
  end
  if #x.shape == 0 then fail("x[%s]: the tensor has no dimensions", shown(key)) end
  local shape = { unpack(key.shape) }
  for d = 2, #x.shape do shape[#shape + 1] = x.shape[d] end
  return ops.reshape(ops.index_select(x, 1, places), shape)
end

--- Walks a list of items, and hands what it finds at an index tensor to `at_tensor(part, dim, item)`.
local function by_list(x, key, at_tensor)
  local count, part, dim, seen = table.maxn(key), x, 1, false
  for k in pairs(key) do
    if type(k) ~= "number" then
      fail("x[...]: unexpected key '%s'; entries go by dimension: x[{ 2, {1, 3} }]", tostring(k))
    end
  end
  if count > #x.shape then fail("x[%s]: %d items for %s, one each dimension", shown(key), count, text(x.shape)) end
  for k = 1, count do
    local item = key[k]
    if type(item) == "number" then part = entry(part, key, dim, item)
    elseif op.is_operand(item) then
      if seen or #item.shape ~= 1 then
        fail("x[%s]: one index tensor of one dimension goes with other items; for more of them write x:gather",
          shown(key))
      end
      seen = true
      part = at_tensor(part, dim, positions(x, key, item))
      dim = dim + 1
    elseif type(item) == "table" then
      if next(item) ~= nil then part = range(part, key, dim, item) end
      dim = dim + 1
    else
      fail("x[%s]: item %d is %s; expected a number, {}, { from, to } or a tensor of indices", shown(key), k,
        item == nil and "nil" or "a " .. type(item))
    end
  end
  return part, seen
end

--- x[key].
function M.read(x, key)
  if type(key) == "number" then
    if #x.shape == 0 then fail("x[%s]: the tensor has no dimensions; x:item() is its number", shown(key)) end
    return entry(x, key, 1, key)
  elseif op.is_operand(key) then return by_tensor(x, key)
  elseif type(key) == "table" then
    return (by_list(x, key, function(part, dim, places) return ops.index_select(part, dim, places) end))
  end
  fail("x[%s]: expected a number, a list { 2, {1, 3} }, a mask or a tensor of indices", shown(key))
end

-- ---- writing ----------------------------------------------------------------------------------------------------

--- A value as a tensor of the dtype of x that stretches to `shape`.
local function fitting(x, key, value, shape)
  if type(value) == "table" and not op.is_operand(value) then value = tensor.tensor(value, x.dtype)
  elseif type(value) == "number" then
    if not core.is_floating[x.dtype] and value % 1 ~= 0 then
      fail("x[%s] = %g: the tensor is %s", shown(key), value, x.dtype)
    end
    value = tensor.tensor(value, {}, core.is_floating[x.dtype] and x.dtype or "float64")
  elseif not op.is_operand(value) then
    fail("x[%s] = a %s; expected a number, a tensor or a table of numbers", shown(key), type(value))
  end
  if program.of(value) then
    fail("x[%s] = a symbolic value: x is a tensor, which stands outside of the program that is traced; make what is "
      .. "computed from it instead, by ops.where or ops.concat", shown(key))
  end
  local common = layout.broadcast(value.shape, shape)
  if not common or not layout.same_shape(common, shape) then
    fail("x[%s] = %s: the place is %s", shown(key), text(value.shape), text(shape))
  end
  return ops.expand(value:to(x.dtype):to(x.device), shape)
end

--- x with `value` at the entries `places` (from 0) of a dimension; of equal places the last one stays.
local function write_places(x, key, dim, places, value)
  local shape = { unpack(x.shape) }
  shape[dim] = places.shape[1]
  local rows = ops.transpose(x, 1, dim)
  local from = tensor.to_host(ops.transpose(fitting(x, key, value, shape), 1, dim))
  local to, at, size = tensor.to_host(rows), tensor.to_host(places), x.shape[dim]
  local bytes = size > 0 and x:bytes() / size or 0
  local to_bytes, from_bytes = ffi.cast("char *", to), ffi.cast("char *", from)
  for k = 0, places.shape[1] - 1 do
    local row = tonumber(at[k])
    if row < 0 or row >= size then
      fail("x[%s] = ...: index %d of dimension %d of %s; indices in a tensor count from 0", shown(key), row, dim,
        text(x.shape))
    end
    ffi.copy(to_bytes + row * bytes, from_bytes + k * bytes, bytes)
  end
  rows:copy_(tensor.tensor(to, rows.shape, x.dtype))
end

local function write_mask(x, key, value)
  check_cover(x, key)
  if op.is_operand(value) and #value.shape > 0 then
    fail("x[mask] = a tensor %s; a mask takes one number: write x:copy_(ops.where(mask, y, x))", text(value.shape))
  end
  local shape = { unpack(key.shape) }
  for d = #key.shape + 1, #x.shape do shape[d] = 1 end
  x:copy_(ops.where(ops.reshape(key, shape), fitting(x, key, value, {}), x))
end

--- x[key] = value: a number, a tensor that stretches to the place, or a nested table of numbers.
function M.write(x, key, value)
  if program.of(x) then
    fail("x[%s] = ...: a symbolic value does not change; make another from it: ops.where(mask, new, x), "
      .. "x:masked_fill(mask, 0), ops.concat of parts", shown(key))
  end
  if op.is_operand(key) then
    if program.of(key) then fail("x[%s] = ...: the key is a symbolic value, the tensor is not", shown(key)) end
    if key.dtype == "uint8" then return write_mask(x, key, value) end
    return write_places(x, key, 1, positions(x, key, key), value)
  end
  if type(key) ~= "table" then
    local part = M.read(x, key)
    part:copy_(fitting(x, key, value, part.shape))
    return
  end
  local dim, places
  local part, indexed = by_list(x, key, function(part, at, found)
    dim, places = at, found
    return part
  end)
  if indexed then write_places(part, key, dim, places, value)
  else part:copy_(fitting(part, key, value, part.shape)) end
end

return M
