--- Tensors of one value.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local fill_op = op.define {
  name = "fill",
  inputs = {},
  options = { "shape", "dtype", "device" },
  floats = { "value" },
  defaults = { dtype = "float32", device = "cpu" },
  shape = function(a) return { { a.shape, a.dtype } } end,
  flops = function() return 0 end,
}

--- A tensor of one value: ops.fill({ 2, 3 }, { value = 1, dtype = "float64" }).
local function fill(shape, options)
  return fill_op { shape = shape, value = options.value, dtype = options.dtype, device = options.device }
end

--- A tensor of one value that goes with x: in x's program if x is symbolic, on x's device otherwise.
---@param options? { shape?: integer[], dtype?: string }
local function full_like(x, value, options)
  local shape, dtype = options and options.shape or x.shape, options and options.dtype or x.dtype
  local symbolic = program.of(x)
  if symbolic then
    local attributes = { shape = shape, dtype = dtype, device = "cpu", value = value }
    return symbolic:record(fill_op, {}, attributes, { { shape, dtype } })[1]
  end
  return fill(shape, { value = value, dtype = dtype, device = x.device ~= "meta" and x.device or nil })
end

--- Sets every element of a tensor to one number, in place and on its device.
function tensor.methods.fill_(t, value)
  if not layout.is_contiguous(t) then
    op.fail("fill_: the tensor %s is a strided view", op.shape_text(t.shape))
  end
  local handle, dtype = ffi.new("pg_tensor *[1]", tensor.handle(t)), core.is_floating[t.dtype] and t.dtype or "float32"
  local ints, floats = op.attributes(fill_op, { value = value })
  core.check(core.C.pg_kernel_run(fill_op.kernel_index(), core.device_code[t.device], core.dtype_code[dtype], 1,
    handle, ints, floats))
  return t
end

return { fill = fill, full_like = full_like }
