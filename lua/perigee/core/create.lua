--- New tensors: pg.zeros, pg.arange, pg.randn, ... Sizes are a list or numbers: pg.zeros { 2, 3 }, pg.zeros(2, 3).
--- After them comes a dtype, "float32" unless told otherwise, or { dtype = ..., device = ... }.
local core = require "perigee.core.ffi"
local dtypes = require "perigee.core.dtype"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"
local sizes = require "perigee.core.sizes"
local tensor = require "perigee.core.tensor"

---@alias perigee.TensorOptions perigee.Dtype|{ dtype?: perigee.Dtype, device?: string }

---@class perigee.create
local M = { tensor = tensor.tensor }

--- A caller's dtype or { dtype =, device = } as a table.
local function placed(name, given, dtype)
  if type(given) == "string" then given = { dtype = given } end
  if given ~= nil and type(given) ~= "table" then
    core.fail("%s: expected a dtype or { dtype = ..., device = ... }, got a %s", name, type(given))
  end
  local o = op.options(name, given, { dtype = dtype or "float32", device = "cpu" })
  o.dtype = dtypes.named(o.dtype, name)
  return o
end

--- The sizes at the beginning of a call's arguments, and the one after them.
local function shape_and_rest(name, first, ...)
  if type(first) ~= "number" then return sizes(name, first), ... end
  local list, count = { first }, select("#", ...)
  for k = 1, count do
    local size = select(k, ...)
    if type(size) ~= "number" then return sizes(name, list), select(k, ...) end
    list[k + 1] = size
  end
  return sizes(name, list)
end

--- A tensor of whatever the memory held.
---@param shape integer[]
---@param given? perigee.TensorOptions
---@return perigee.Tensor
function M.empty(...)
  local shape, given = shape_and_rest("empty", ...)
  local o = placed("empty", given)
  return tensor.empty(shape, o.dtype, { device = o.device })
end

--- A tensor of one value.
---@param shape integer[]
---@param value number
---@param options? perigee.TensorOptions
---@return perigee.Tensor
function M.full(shape, value, options)
  if type(shape) ~= "table" then core.fail "full: the sizes go in a list: pg.full({ 2, 3 }, 7)" end
  if type(value) ~= "number" then core.fail("full: the value is a %s; expected a number", type(value)) end
  local o = placed("full", options)
  return ops.fill(sizes("full", shape), { value = value, dtype = o.dtype, device = o.device })
end

local function constant(name, value)
  return function(...)
    local shape, options = shape_and_rest(name, ...)
    local o = placed(name, options)
    return ops.fill(shape, { value = value, dtype = o.dtype, device = o.device })
  end
end

---@type fun(...: integer|integer[]|perigee.TensorOptions): perigee.Tensor
M.zeros = constant("zeros", 0)
---@type fun(...: integer|integer[]|perigee.TensorOptions): perigee.Tensor
M.ones = constant("ones", 1)

--- first, first + step, ... up to but without `last`; of one number n: 0 ... n − 1.
---@param first number
---@param last? number
---@param step? number
---@param options? perigee.TensorOptions
---@return perigee.Tensor
function M.arange(first, last, step, options)
  if type(last) ~= "number" then first, last, step, options = 0, first, 1, last or step or options
  elseif type(step) ~= "number" then step, options = 1, step or options end
  if type(last) ~= "number" or step == 0 then
    core.fail "arange: expected a number, as in pg.arange(6) or pg.arange(0, 6, 2), and a step other than 0"
  end
  local o = placed("arange", options)
  return ops.arange(math.max(0, math.ceil((last - first) / step)),
    { start = first, step = step, dtype = o.dtype, device = o.device })
end

--- `count` numbers at equal distances from `first` to `last`, both included.
---@param first number
---@param last number
---@param count integer
---@param options? perigee.TensorOptions
---@return perigee.Tensor
function M.linspace(first, last, count, options)
  if type(first) ~= "number" or type(last) ~= "number" or type(count) ~= "number" or count < 0 or count % 1 ~= 0 then
    core.fail "linspace: expected two numbers and how many, as in pg.linspace(0, 1, 11)"
  end
  local o = placed("linspace", options)
  local step = count > 1 and (last - first) / (count - 1) or 0
  return ops.arange(count, { start = first, step = step, dtype = o.dtype, device = o.device })
end

--- A matrix with ones on its diagonal, square unless `columns` says otherwise.
---@param rows integer
---@param columns? integer
---@param options? perigee.TensorOptions
---@return perigee.Tensor
function M.eye(rows, columns, options)
  if type(columns) ~= "number" then columns, options = rows, columns or options end
  local o = placed("eye", options)
  local row = ops.arange(rows, { dtype = "int32", device = o.device })
  local column = ops.arange(columns, { dtype = "int32", device = o.device })
  return ops.cast(ops.equal(ops.unsqueeze(row, 2), column), o.dtype)
end

-- ---- random tensors: reproducible, from one counter that pg.seed sets ------------------------------------------

local random = { seed = 0, count = 0 }

--- Random tensors from now on begin again, with this seed.
---@param seed integer
function M.seed(seed) random.seed, random.count = seed, 0 end

local function state_on(device)
  local state = tensor.tensor({ random.seed, random.count, 0 }, "int64")
  random.count = random.count + 1
  return state:to(device)
end

local function draw(name, from)
  return function(...)
    local shape, options = shape_and_rest(name, ...)
    local o = placed(name, options)
    return from(shape, { state = state_on(o.device), purpose = "eager", dtype = o.dtype })
  end
end

--- Numbers of the standard normal distribution.
---@type fun(...: integer|integer[]|perigee.TensorOptions): perigee.Tensor
M.randn = draw("randn", ops.random_normal)
--- Numbers of [0, 1).
---@type fun(...: integer|integer[]|perigee.TensorOptions): perigee.Tensor
M.rand = draw("rand", ops.random_uniform)

--- int64 numbers low ... high − 1; low is 0 where it is left out: pg.randint(10, { 2, 3 }).
---@param low integer
---@param high integer
---@param shape integer[]
---@param options? perigee.TensorOptions
---@return perigee.Tensor
function M.randint(low, high, shape, options)
  if type(high) == "table" then low, high, shape, options = 0, low, high, shape end
  if type(low) ~= "number" or type(high) ~= "number" or high <= low then
    core.fail "randint: expected pg.randint(high, { 2, 3 }) or pg.randint(low, high, { 2, 3 }), low below high"
  end
  local o = placed("randint", options, "int64")
  local drawn = ops.random_integers(sizes("randint", shape),
    { state = state_on(o.device), purpose = "eager", high = high - low })
  return ops.cast(ops.affine(drawn, 1, low), o.dtype)
end

--- 0 ... count − 1 in random order, int64.
---@param count integer
---@return perigee.Tensor
function M.randperm(count)
  if type(count) ~= "number" or count < 0 or count % 1 ~= 0 then
    core.fail("randperm: %s; expected a whole number", tostring(count))
  end
  return ops.random_permutation(count, { state = state_on "cpu", purpose = "eager" })
end

-- ---- tensors like others ---------------------------------------------------------------------------------------

local function like(name, make)
  return function(x, options)
    op.expect(name, x)
    local dtype = core.is_floating[x.dtype] and x.dtype or nil
    local o = placed(name, options, name:find "rand" and dtype or x.dtype)
    return make(x, o)
  end
end

local function constant_like(name, value)
  return like(name, function(x, o) return ops.full_like(x, value, { dtype = o.dtype }) end)
end

--- Zeros, ones, one value, random numbers: of x's shape, dtype and device.
M.zeros_like, M.ones_like = constant_like("zeros_like", 0), constant_like("ones_like", 1)

---@param value number
function M.full_like(x, value, options)
  if type(value) ~= "number" then core.fail("full_like: the value is a %s; expected a number", type(value)) end
  return constant_like("full_like", value)(x, options)
end

local function draw_like(name, from)
  return like(name, function(x, o)
    if program.of(x) then
      core.fail("%s of a symbolic value: it would be drawn once, when the program is traced; write "
        .. "ops.%s(x.shape, { state = context.state, purpose = \"a name\" })", name,
        name == "randn_like" and "random_normal" or "random_uniform")
    end
    return from(x.shape, { state = state_on(x.device), purpose = "eager", dtype = o.dtype })
  end)
end
M.randn_like, M.rand_like = draw_like("randn_like", ops.random_normal), draw_like("rand_like", ops.random_uniform)

return M
