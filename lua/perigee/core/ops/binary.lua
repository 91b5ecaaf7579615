--- Functions of two elements, with numpy's broadcasting: kernels/binary/binary.h lists them. Either side may be a Lua
--- number.
---
--- dtypes: a real one wins over an integer one, the wider over the narrower, bfloat16 is narrower than float32. A
--- tensor without dimensions, like a loss weight, takes the other side's dtype (unless only it is real).
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local list = require "perigee.core.list"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text, unbroadcast = op.fail, op.shape_text, op.unbroadcast

local gradient = {}
function gradient.add(_, dy) return function() return dy end, function() return dy end end
function gradient.sub(_, dy) return function() return dy end, function() return ops.neg(dy) end end
function gradient.mul(n, dy)
  return function() return ops.mul(dy, n.b) end, function() return ops.mul(dy, n.a) end
end
function gradient.div(n, dy)
  return function() return ops.div(dy, n.b) end, function() return ops.neg(ops.div(ops.mul(dy, n.y), n.b)) end
end
function gradient.pow(n, dy)
  return function() return ops.mul(dy, ops.mul(n.b, ops.pow(n.a, ops.sub(n.b, 1)))) end,
    function() return ops.mul(dy, ops.mul(n.y, ops.log(n.a))) end
end
local function choice(compare) -- of two equals the first counts as chosen
  return function(n, dy)
    return function() return ops.where(compare(n.a, n.b), dy, 0) end,
      function() return ops.where(compare(n.a, n.b), 0, dy) end
  end
end
gradient.maximum = choice(function(a, b) return ops.greater_equal(a, b) end)
gradient.minimum = choice(function(a, b) return ops.less_equal(a, b) end)

function gradient.remainder(n, dy)
  return function() return dy end, function() return ops.neg(ops.mul(dy, ops.floor_divide(n.a, n.b))) end
end

local function vjp_of(name)
  if name == "floor_divide" then return function() return {} end end -- constant between its steps
  local parts = gradient[name]
  return parts and function(n, dy)
    local of_a, of_b = parts(n, dy)
    return {
      a = n:needs "a" and unbroadcast(of_a(), n.a.shape) or nil,
      b = n:needs "b" and unbroadcast(of_b(), n.b.shape) or nil,
    }
  end
end

local HEADER = "kernels/binary/binary.h"
local functions = list.read(HEADER, { "PG_BINARY_ARITHMETIC", "PG_BINARY_COMPARISONS", "PG_BINARY_LOGICAL" })
local truth = list.read(HEADER, { "PG_BINARY_COMPARISONS", "PG_BINARY_LOGICAL" }).number -- those whose result is uint8
local logical = list.read(HEADER, { "PG_BINARY_LOGICAL" }).number

local defined = {}
for name, number in pairs(functions.number) do
  defined[name] = op.define {
    name = name,
    kernel = "binary",
    inputs = { "a", "b" },
    ints = { "operation" },
    defaults = { operation = number },
    strided = true,
    inplace = not truth[name] and { y = "a" } or nil,
    shape = function(a)
      local shape = layout.broadcast(a.a.shape, a.b.shape)
      if not shape then fail("%s: %s and %s do not broadcast", name, text(a.a.shape), text(a.b.shape)) end
      return { { shape, truth[name] and "uint8" or a.a.dtype } }
    end,
    vjp = vjp_of(name),
  }
end

local rank = { uint8 = 1, int32 = 2, int64 = 3, bfloat16 = 4, float32 = 5, float64 = 6 }

--- The dtype in which two operands meet.
local function common_dtype(a, b)
  if a.dtype == b.dtype then return a.dtype end
  if core.is_floating[a.dtype] == core.is_floating[b.dtype] and (#a.shape == 0) ~= (#b.shape == 0) then
    return #a.shape == 0 and b.dtype or a.dtype
  end
  return rank[a.dtype] > rank[b.dtype] and a.dtype or b.dtype
end

--- A number as a tensor without dimensions that goes with x.
local function scalar(number, x)
  local dtype = x.dtype
  if not core.is_floating[dtype] and number % 1 ~= 0 then dtype = "float32" end
  return ops.full_like(x, number, { shape = {}, dtype = dtype })
end

local function expect_side(name, x)
  if type(x) ~= "number" and not op.is_operand(x) then
    fail("%s: expected tensors or numbers, got %s", name, x == nil and "nil" or "a " .. type(x))
  end
end

local function operands(name, a, b)
  expect_side(name, a)
  expect_side(name, b)
  if type(a) == "number" then a = scalar(a, b) elseif type(b) == "number" then b = scalar(b, a) end
  local dtype = common_dtype(a, b)
  return ops.cast(a, dtype), ops.cast(b, dtype)
end

local function real(x) return core.is_floating[x.dtype] and x or ops.cast(x, "float32") end

--- An operation with a number on one side.
local with_number = {}
function with_number.add(x, c) return ops.affine(x, 1, c) end
function with_number.sub(x, c, reversed) return reversed and ops.affine(x, -1, c) or ops.affine(x, 1, -c) end
function with_number.mul(x, c) return ops.affine(x, c, 0) end
function with_number.div(x, c, reversed)
  if reversed then return ops.affine(ops.reciprocal(x), c, 0) end
  return ops.affine(real(x), 1 / c, 0)
end
function with_number.pow(x, c, reversed)
  if reversed then return defined.pow(scalar(c, real(x)), real(x)) end
  return ops.power(x, c)
end
function with_number.maximum(x, c) return core.is_floating[x.dtype] and ops.clamp(x, c, nil) or nil end
function with_number.minimum(x, c) return core.is_floating[x.dtype] and ops.clamp(x, nil, c) or nil end

local exported = { methods = {} }
for name, definition in pairs(defined) do
  exported[name] = function(a, b)
    local short = with_number[name]
    if short and type(b) == "number" and op.is_operand(a) then
      local y = short(a, b, false)
      if y then return y end
    elseif short and type(a) == "number" and op.is_operand(b) then
      local y = short(b, a, true)
      if y then return y end
    elseif type(a) == "number" and type(b) == "number" then
      fail("%s: one side must be a tensor; both are numbers", name)
    end
    a, b = operands(name, a, b)
    if name == "div" or name == "pow" then a, b = real(a), real(b) end
    if logical[name] then a, b = ops.truth(a), ops.truth(b) end
    return definition(a, b)
  end
end

--- uint8: 1 where x is not zero.
function exported.truth(x)
  op.expect("truth", x)
  if x.dtype == "uint8" then return x end
  return exported.not_equal(x, 0)
end

function exported.logical_not(x) return exported.equal(x, 0) end

--- uint8: 1 where x is no number.
function exported.isnan(x) return exported.not_equal(x, x) end

--- uint8: 1 where x is infinite.
function exported.isinf(x) return exported.equal(ops.abs(x), math.huge) end

--- uint8: 1 where x is neither infinite nor no number.
function exported.isfinite(x) return exported.less(ops.abs(x), math.huge) end

-- PyTorch's other names
for name, of in pairs {
  eq = "equal", ne = "not_equal", lt = "less", le = "less_equal", gt = "greater", ge = "greater_equal",
  subtract = "sub", multiply = "mul", divide = "div",
} do exported[name] = exported[of] end

for name, body in pairs(exported) do
  if name ~= "methods" and name ~= "truth" then exported.methods[name] = body end
end
return exported
