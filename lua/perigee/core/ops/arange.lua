--- Numbers in a row.
local dtypes = require "perigee.core.dtype"
local op = require "perigee.core.op"
local program = require "perigee.core.program"

local arange_op = op.define {
  name = "arange",
  inputs = {},
  options = { "count", "dtype", "device" },
  floats = { "start", "step" },
  defaults = { dtype = "float32", device = "cpu", start = 0, step = 1 },
  shape = function(a) return { { { a.count }, a.dtype } } end,
  flops = function() return 0 end,
}

--- `count` numbers, start, start + step, ...: ops.arange(10, { start = 1, dtype = "int64" }).
local function arange(count, options)
  options = op.options("arange", options, { start = 0, step = 1, dtype = "float32", device = "cpu" })
  return arange_op {
    count = count, start = options.start, step = options.step, dtype = dtypes.named(options.dtype, "arange"),
    device = options.device,
  }
end

--- The same that goes with x: in x's program if x is symbolic, on x's device otherwise.
local function arange_like(x, count, options)
  local start, step, dtype = options.start or 0, options.step or 1, dtypes.named(options.dtype, "arange_like")
  local symbolic = program.of(x)
  if symbolic then
    local attributes = { count = count, start = start, step = step, dtype = dtype, device = "cpu" }
    return symbolic:record(arange_op, {}, attributes, { { { count }, dtype } })[1]
  end
  return arange(count, { start = start, step = step, dtype = dtype, device = x.device })
end

return { arange = arange, arange_like = arange_like }
