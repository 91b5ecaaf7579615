--- Joining tensors.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local MOST = core.C.PG_MAX_VIEWS - 1
local names = {}
for k = 1, MOST do names[k] = k == 1 and "x1" or ("x%d?"):format(k) end

local concat_op = op.define {
  name = "concat",
  inputs = names,
  ints = { "dim" }, -- counted from 0
  strided = true,
  shape = function(a)
    local shape, dim = {}, a.dim + 1
    for d, size in ipairs(a.x1.shape) do shape[d] = size end
    for k = 2, MOST do
      local x = a["x" .. k]
      if x then shape[dim] = shape[dim] + x.shape[dim] end
    end
    return { { shape, a.x1.dtype } }
  end,
  vjp = function(n, dy)
    local gradients, start = {}, 1
    for k = 1, MOST do
      local name = "x" .. k
      local x = n[name]
      if not x then break end
      local length = x.shape[n.dim + 1]
      if n:needs(name) then gradients[name] = ops.narrow(dy, n.dim + 1, start, length) end
      start = start + length
    end
    return gradients
  end,
  flops = function() return 0 end,
}

local function check_alike(list, dim)
  local first = list[1]
  for k, x in ipairs(list) do
    local alike = #x.shape == #first.shape and x.dtype == first.dtype
    for d = 1, #first.shape do alike = alike and (d == dim or x.shape[d] == first.shape[d]) end
    if not alike then
      fail("concat: part 1 is %s %s, part %d is %s %s; they may differ in dimension %d only", first.dtype,
        text(first.shape), k, x.dtype, text(x.shape), dim)
    end
  end
end

--- Joins a list of tensors along a dimension, the first where none is named.
local function concat(list, dim)
  if type(list) ~= "table" or op.is_operand(list) or #list == 0 then fail "concat: expected a list of tensors" end
  dim = op.dimension("concat", dim or 1, list[1].shape)
  check_alike(list, dim)
  if #list == 1 then return list[1] end
  if #list > MOST then
    local groups = {}
    for k = 1, #list, MOST do
      groups[#groups + 1] = concat({ unpack(list, k, math.min(k + MOST - 1, #list)) }, dim)
    end
    return concat(groups, dim)
  end
  local arguments = { unpack(list) }
  arguments[MOST + 1] = { dim = dim - 1 }
  return concat_op(unpack(arguments, 1, MOST + 1))
end

--- Joins tensors of one shape along a new dimension.
local function stack(list, dim)
  if type(list) ~= "table" or op.is_operand(list) then fail "stack: expected a list of tensors" end
  local parts = {}
  for k, x in ipairs(list) do parts[k] = ops.unsqueeze(x, dim or 1) end
  return concat(parts, dim or 1)
end

return { concat = concat, cat = concat, stack = stack }
