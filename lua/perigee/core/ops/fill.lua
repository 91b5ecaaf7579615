--- Tensors of one value.
local dtypes = require "perigee.core.dtype"
local op = require "perigee.core.op"
local program = require "perigee.core.program"

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
  local dtype = dtypes.named(options.dtype, "fill")
  return fill_op { shape = shape, value = options.value, dtype = dtype, device = options.device }
end

--- A tensor of one value that goes with x: in x's program if x is symbolic, on x's device otherwise.
---@param options? { shape?: integer[], dtype?: string }
local function full_like(x, value, options)
  op.expect("full_like", x)
  if type(value) ~= "number" then op.fail("full_like: the value is a %s; expected a number", type(value)) end
  if options ~= nil and type(options) ~= "table" then
    op.fail("full_like: the options are a %s; expected { shape = ..., dtype = ... }", type(options))
  end
  local shape, dtype = options and options.shape or x.shape, x.dtype
  if options and options.dtype then dtype = dtypes.named(options.dtype, "full_like") end
  local symbolic = program.of(x)
  if symbolic then
    local attributes = { shape = shape, dtype = dtype, device = "cpu", value = value }
    return symbolic:record(fill_op, {}, attributes, { { shape, dtype } })[1]
  end
  return fill(shape, { value = value, dtype = dtype, device = x.device ~= "meta" and x.device or nil })
end

--- Zeros and ones that go with x.
local function zeros_like(x, options) return full_like(x, 0, options) end
local function ones_like(x, options) return full_like(x, 1, options) end

return { fill = fill, full_like = full_like, zeros_like = zeros_like, ones_like = ones_like }
