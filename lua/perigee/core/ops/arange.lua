--- Numbers in a row.
local op = require "perigee.core.op"

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
  options = options or {}
  return arange_op {
    count = count, start = options.start, step = options.step, dtype = options.dtype, device = options.device,
  }
end

return { arange = arange }
