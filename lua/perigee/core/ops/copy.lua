--- Moving elements: copies, dtypes, constants, joining, padding.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local fail, text = op.fail, op.shape_text

local function same(a) return { { a.x.shape, a.x.dtype } } end
local function no_flops() return 0 end

local copy = op.define {
  name = "copy",
  inputs = { "x" },
  strided = true,
  shape = same,
  vjp = function(_, dy) return { x = dy } end,
  flops = no_flops,
}

--- x itself where its elements lie in row-major order without gaps, else such a copy.
local function contiguous(x)
  if layout.is_contiguous(x) then return x end
  return copy(x)
end

local cast_op = op.define {
  name = "cast",
  inputs = { "x" },
  options = { "dtype" },
  strided = true,
  instance = function() return "float32" end,
  shape = function(a) return { { a.x.shape, a.dtype } } end,
  vjp = function(n, dy) return { x = ops.cast(dy, n.x.dtype) } end,
  flops = no_flops,
}

--- x in another dtype. Real numbers become integers by truncation; what does not fit takes the nearest value that does.
local function cast(x, dtype)
  if not core.dtype_code[dtype] then
    fail("cast: '%s' is no dtype; there are %s", tostring(dtype), table.concat(core.dtypes, ", "))
  end
  if x.dtype == dtype then return x end
  return cast_op(x, { dtype = dtype })
end

local fill_op = op.define {
  name = "fill",
  inputs = {},
  options = { "shape", "dtype", "device" },
  floats = { "value" },
  defaults = { dtype = "float32", device = "cpu" },
  shape = function(a) return { { a.shape, a.dtype } } end,
  flops = no_flops,
}

--- A tensor of one value: ops.fill({ 2, 3 }, { value = 1, dtype = "float64" }).
local function fill(shape, options)
  return fill_op { shape = shape, value = options.value, dtype = options.dtype, device = options.device }
end

--- A tensor of one value that goes with x: in x's program if x is symbolic, on x's device otherwise.
---@param options? { shape?: integer[], dtype?: string }
local function full_like(x, value, options)
  local shape, dtype = options and options.shape or x.shape, options and options.dtype or x.dtype
  if program.is_value(x) then
    local attributes = { shape = shape, dtype = dtype, device = "cpu", value = value }
    return x.program:record(fill_op, {}, attributes, { { shape, dtype } })[1]
  end
  return fill(shape, { value = value, dtype = dtype, device = x.device ~= "meta" and x.device or nil })
end

--- Sets every element of a tensor to one number, in place and on its device.
function tensor.methods.fill_(t, value)
  if not layout.is_contiguous(t) then fail("fill_: the tensor %s is a strided view", text(t.shape)) end
  local handle, dtype = ffi.new("pg_tensor *[1]", tensor.handle(t)), core.is_floating[t.dtype] and t.dtype or "float32"
  local ints, floats = op.attributes(fill_op, { value = value })
  core.check(core.C.pg_kernel_run(fill_op.kernel_index(), core.device_code[t.device], core.dtype_code[dtype], 1,
    handle, ints, floats))
  return t
end

local arange_op = op.define {
  name = "arange",
  inputs = {},
  options = { "count", "dtype", "device" },
  floats = { "start", "step" },
  defaults = { dtype = "float32", device = "cpu", start = 0, step = 1 },
  shape = function(a) return { { { a.count }, a.dtype } } end,
  flops = no_flops,
}

--- `count` numbers, start, start + step, ...: ops.arange(10, { start = 1, dtype = "int64" }).
local function arange(count, options)
  options = options or {}
  return arange_op {
    count = count, start = options.start, step = options.step, dtype = options.dtype, device = options.device,
  }
end

-- ---- concat and narrow_backward ---------------------------------------------------------------------------------

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
  flops = no_flops,
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

--- Joins a list of tensors along a dimension.
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
  local parts = {}
  for k, x in ipairs(list) do parts[k] = ops.unsqueeze(x, dim or 1) end
  return concat(parts, dim or 1)
end

local narrow_backward_op = op.define {
  name = "narrow_backward",
  inputs = { "dy" },
  outputs = { "dx" },
  ints = { "dim", "start" }, -- counted from 0
  options = { "size" },
  strided = true,
  shape = function(a)
    local shape = {}
    for d, size in ipairs(a.dy.shape) do shape[d] = size end
    shape[a.dim + 1] = a.size
    return { { shape, a.dy.dtype } }
  end,
  vjp = function(n, ddx)
    return { dy = ops.narrow(ddx, n.dim + 1, n.start + 1, n.dy.shape[n.dim + 1]) }
  end,
  flops = no_flops,
}

--- The gradient of narrow: dy at places start, start + 1, ... of a dimension of `size` places, zero elsewhere.
local function narrow_backward(dy, options)
  return narrow_backward_op(dy, { dim = options.dim - 1, start = options.start - 1, size = options.size })
end

local flip_op = op.define {
  name = "flip",
  inputs = { "x" },
  ints = { "dim" }, -- counted from 0
  strided = true,
  shape = same,
  vjp = function(n, dy) return { x = ops.flip(dy, n.dim + 1) } end,
  flops = no_flops,
}

--- A dimension in reverse order.
local function flip(x, dim)
  return flip_op(x, { dim = op.dimension("flip", dim, x.shape) - 1 })
end

return {
  copy = copy, contiguous = contiguous, cast = cast, fill = fill, full_like = full_like, arange = arange,
  concat = concat, stack = stack, narrow_backward = narrow_backward, flip = flip,
  methods = { contiguous = contiguous, cast = cast, flip = flip },
}
