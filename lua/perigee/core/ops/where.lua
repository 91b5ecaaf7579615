--- Choice by element: y = condition ? a : b, with broadcasting; a and b may be numbers.
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text, unbroadcast = op.fail, op.shape_text, op.unbroadcast

local where_op = op.define {
  name = "where",
  inputs = { "condition", "a", "b" },
  strided = true,
  shape = function(a)
    local shape = layout.broadcast(a.a.shape, a.b.shape)
    shape = shape and layout.broadcast(a.condition.shape, shape)
    if not shape then
      fail("where: %s, %s and %s do not broadcast", text(a.condition.shape), text(a.a.shape), text(a.b.shape))
    end
    if a.a.dtype ~= a.b.dtype then fail("where: one choice is %s, the other %s", a.a.dtype, a.b.dtype) end
    return { { shape, a.a.dtype } }
  end,
  vjp = function(n, dy)
    return {
      a = n:needs "a" and unbroadcast(ops.where(n.condition, dy, 0), n.a.shape) or nil,
      b = n:needs "b" and unbroadcast(ops.where(n.condition, 0, dy), n.b.shape) or nil,
    }
  end,
}

local function scalar(number, like, dtype)
  if not core.is_floating[dtype] and number % 1 ~= 0 then fail("where: %g among numbers of dtype %s", number, dtype) end
  return ops.full_like(like, number, { shape = {}, dtype = dtype })
end

local function expect_choice(k, x)
  if type(x) ~= "number" and not op.is_operand(x) then
    fail("where: choice %d is %s; expected a tensor or a number, as in ops.where(mask, x, 0)", k,
      x == nil and "nil" or "a " .. type(x))
  end
end

--- y = a where the condition is not zero, b elsewhere.
local function where(condition, a, b)
  if not op.is_operand(condition) then fail("where: the condition is a %s, not a tensor", type(condition)) end
  expect_choice(1, a)
  expect_choice(2, b)
  local dtype = op.is_operand(a) and a.dtype or op.is_operand(b) and b.dtype or "float32"
  if type(a) == "number" then a = scalar(a, condition, dtype) end
  if type(b) == "number" then b = scalar(b, condition, dtype) end
  if a.dtype ~= b.dtype then
    if #a.shape == 0 then a = ops.cast(a, b.dtype) else b = ops.cast(b, a.dtype) end
  end
  return where_op(ops.truth(condition), a, b)
end

--- x with a number, or a tensor's one number, where the mask is not zero.
---@param value number|perigee.Tensor
local function masked_fill(x, mask, value)
  if not op.is_operand(mask) then fail("masked_fill: the mask is a %s, not a tensor", type(mask)) end
  if op.is_operand(value) then
    if op.numel(value.shape) ~= 1 then
      fail("masked_fill: the value is %s, not one number; write ops.where(mask, y, x)", text(value.shape))
    end
    value = ops.cast(ops.reshape(value, {}), x.dtype)
  elseif type(value) ~= "number" then fail("masked_fill: the value is a %s, not a number", type(value)) end
  local y = where(mask, value, x)
  if not op.same_shape(y.shape, x.shape) then
    fail("masked_fill: the mask is %s, it does not stretch to x's %s", text(mask.shape), text(x.shape))
  end
  return y
end

return { where = where, masked_fill = masked_fill, methods = { masked_fill = masked_fill } }
