--- Random tensors. A draw depends on the state (an int64 tensor or value: seed, step, first sample), the purpose
--- (a name) and the place in the result, on nothing else (kernels/random/random.h). A state is an input of a program,
--- never a constant in it.
local bit = require "bit"
local dtypes = require "perigee.core.dtype"
local op = require "perigee.core.op"

local fail = op.fail

--- A purpose's number: 31 bits of FNV-1a of its name.
local function purpose_number(name)
  if type(name) ~= "string" then fail("random: the purpose is a %s; give a name, like \"noise\"", type(name)) end
  local hash = bit.tobit(2166136261)
  for k = 1, #name do
    hash = bit.bxor(hash, name:byte(k))
    -- times 16777619 = 2^24 + 2^8 + 147, modulo 2^32, in pieces that a double holds exactly
    local low, high = bit.band(hash, 0xffff), bit.rshift(hash, 16)
    hash = bit.tobit((low * 16777619) % 2 ^ 32 + ((high * 16777619) % 65536) * 65536)
  end
  return bit.band(hash, 0x7fffffff)
end

local function define(name, ints, options)
  return op.define {
    name = name,
    inputs = { "state" },
    ints = ints,
    options = options,
    random = true,
    shape = function(a)
      if a.state.dtype ~= "int64" or op.numel(a.state.shape) ~= 3 then
        fail("%s: the state is %s %s, expected int64 [3]: seed, step, first sample", name, a.state.dtype,
          op.shape_text(a.state.shape))
      end
      return { { a.shape, a.dtype or "int64" } }
    end,
    instance = function(n) return n.outputs[1].dtype ~= "int64" and n.outputs[1].dtype or "float32" end,
    vjp = function() return {} end,
  }
end

local uniform_op = define("random_uniform", { "purpose" }, { "shape", "dtype" })
local normal_op = define("random_normal", { "purpose" }, { "shape", "dtype" })
local integers_op = define("random_integers", { "purpose", "high" }, { "shape" })
local permutation_op = define("random_permutation", { "purpose" }, { "shape" })

local function checked(name, options, known)
  if type(options) ~= "table" then fail("%s: expected { state =, purpose = }, got a %s", name, type(options)) end
  for key in pairs(options) do
    if not known[key] then fail("%s: unknown option '%s'", name, tostring(key)) end
  end
  return options
end

local real_options = { state = true, purpose = true, dtype = true }

--- Numbers of [0, 1): ops.random_uniform({ 2, 3 }, { state = s, purpose = "time" }).
local function random_uniform(shape, options)
  local o = checked("random_uniform", options, real_options)
  local dtype = dtypes.named(o.dtype, "random_uniform")
  return uniform_op(o.state, { shape = shape, dtype = dtype, purpose = purpose_number(o.purpose) })
end

--- Numbers of the standard normal distribution.
local function random_normal(shape, options)
  local o = checked("random_normal", options, real_options)
  local dtype = dtypes.named(o.dtype, "random_normal")
  return normal_op(o.state, { shape = shape, dtype = dtype, purpose = purpose_number(o.purpose) })
end

--- int64 numbers 0 .. high - 1.
local function random_integers(shape, options)
  local o = checked("random_integers", options, { state = true, purpose = true, high = true })
  if type(o.high) ~= "number" or o.high < 1 or o.high % 1 ~= 0 then
    fail("random_integers: high is %s, expected a whole number of at least 1", tostring(o.high))
  end
  return integers_op(o.state, { shape = shape, high = o.high, purpose = purpose_number(o.purpose) })
end

--- 0 .. count - 1 in random order, int64.
local function random_permutation(count, options)
  local o = checked("random_permutation", options, { state = true, purpose = true })
  return permutation_op(o.state, { shape = { count }, purpose = purpose_number(o.purpose) })
end

return {
  random_uniform = random_uniform, random_normal = random_normal, random_integers = random_integers,
  random_permutation = random_permutation,
}
