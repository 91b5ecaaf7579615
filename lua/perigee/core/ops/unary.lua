--- Functions of one element: kernels/unary/unary.h lists them.
local core = require "perigee.core.ffi"
local list = require "perigee.core.list"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local functions = list.read("kernels/unary/unary.h", { "PG_UNARY" })
local of_integers = list.read("kernels/unary/unary.h", { "PG_UNARY_INTEGERS" }).number

local gradient = {}
function gradient.neg(_, dy) return ops.neg(dy) end
function gradient.abs(n, dy) return ops.mul(dy, ops.sign(n.x)) end
function gradient.exp(n, dy) return ops.mul(dy, n.y) end
function gradient.log(n, dy) return ops.div(dy, n.x) end
function gradient.sqrt(n, dy) return ops.div(ops.mul(dy, 0.5), n.y) end
function gradient.rsqrt(n, dy) return ops.mul(dy, ops.mul(n.y, ops.mul(ops.square(n.y), -0.5))) end
function gradient.square(n, dy) return ops.mul(dy, ops.mul(n.x, 2)) end
function gradient.sin(n, dy) return ops.mul(dy, ops.cos(n.x)) end
function gradient.cos(n, dy) return ops.mul(dy, ops.neg(ops.sin(n.x))) end
function gradient.tanh(n, dy) return ops.mul(dy, ops.affine(ops.square(n.y), -1, 1)) end
function gradient.sigmoid(n, dy) return ops.mul(dy, ops.mul(n.y, ops.affine(n.y, -1, 1))) end
function gradient.relu(n, dy) return ops.where(ops.greater(n.x, 0), dy, 0) end
function gradient.erf(n, dy)
  return ops.mul(dy, ops.mul(ops.exp(ops.neg(ops.square(n.x))), 2 / math.sqrt(math.pi)))
end
function gradient.floor() end -- constant between its steps
gradient.round, gradient.sign, gradient.round_to_half = gradient.floor, gradient.floor, gradient.floor
function gradient.reciprocal(n, dy) return ops.mul(dy, ops.neg(ops.square(n.y))) end
function gradient.affine(n, dy) return ops.mul(dy, n.a) end
function gradient.clamp(n, dy)
  local inside = ops.logical_and(ops.greater_equal(n.x, n.low), ops.less_equal(n.x, n.high))
  return ops.where(inside, dy, 0)
end
function gradient.power(n, dy) return ops.mul(dy, ops.mul(ops.pow(n.x, n.exponent - 1), n.exponent)) end
function gradient.atan(n, dy) return ops.div(dy, ops.affine(ops.square(n.x), 1, 1)) end

local constants = { affine = { "a", "b" }, clamp = { "low", "high" }, power = { "exponent" } }

local defined = {}
for name, number in pairs(functions.number) do
  defined[name] = op.define {
    name = name,
    kernel = "unary",
    inputs = { "x" },
    ints = { "operation" },
    defaults = { operation = number },
    floats = constants[name],
    strided = true,
    inplace = { y = "x" },
    shape = function(a) return { { a.x.shape, a.x.dtype } } end,
    vjp = function(n, dy) return { x = gradient[name](n, dy) } end,
  }
end

--- Functions that integers do not have see them as float32.
local function real(x) return core.is_floating[x.dtype] and x or ops.cast(x, "float32") end

local exported = { methods = {} }
for name, definition in pairs(defined) do
  if not constants[name] then
    exported[name] = function(x)
      op.expect(name, x)
      return definition(of_integers[name] and x or real(x))
    end
    exported.methods[name] = exported[name]
  end
end

local function whole(c) return c % 1 == 0 and math.abs(c) < 2 ^ 53 end

--- a·x + b for two numbers. Integers stay integers where a and b are whole.
function exported.affine(x, a, b)
  op.expect("affine", x)
  if type(a) ~= "number" or type(b) ~= "number" then op.fail "affine: expected x:affine(a, b), two numbers" end
  if not (whole(a) and whole(b)) then x = real(x) end
  if a == 1 and b == 0 then return x end
  return defined.affine(x, { a = a, b = b })
end

--- x, but at least `low` and at most `high`, two numbers; nil: no limit. Also clamp { min = low, max = high }.
---@param low? number|{ min?: number, max?: number }
---@param high? number
function exported.clamp(x, low, high)
  op.expect("clamp", x)
  if type(low) == "table" and not op.is_operand(low) then
    local limits = op.options("clamp", low, { min = false, max = false })
    low, high = limits.min or nil, limits.max or nil
  end
  if not ((low == nil or type(low) == "number") and (high == nil or type(high) == "number")) then
    op.fail("clamp: limits are numbers, as in x:clamp(0, 1); for tensors write ops.minimum(ops.maximum(x, low), high)")
  end
  local limits = { low = low or -math.huge, high = high or math.huge }
  if not core.is_floating[x.dtype] then
    local least, most = -2 ^ 31, 2 ^ 31 - 1
    if x.dtype == "uint8" then least, most = 0, 255 elseif x.dtype == "int64" then least, most = -2 ^ 53, 2 ^ 53 end
    limits = { low = math.max(math.ceil(limits.low), least), high = math.min(math.floor(limits.high), most) }
  end
  return defined.clamp(x, limits)
end

local powers = {
  [1] = function(x) return x end, [2] = exported.square, [0.5] = exported.sqrt, [-0.5] = exported.rsqrt,
  [-1] = exported.reciprocal,
}

--- x to the power of a number.
function exported.power(x, exponent)
  op.expect("power", x)
  if type(exponent) ~= "number" then op.fail("power: the exponent is a %s; x ^ y takes tensors", type(exponent)) end
  x = real(x)
  if powers[exponent] then return powers[exponent](x) end
  return defined.power(x, { exponent = exponent })
end

exported.methods.affine, exported.methods.clamp = exported.affine, exported.clamp
return exported
