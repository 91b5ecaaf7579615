--- Σ x² as one number, for the norm of a gradient.
local op = require "perigee.core.op"

local square_sum = op.define {
  name = "square_sum",
  inputs = { "x" },
  outputs = { "sum" },
  shape = function(a) return { { {}, op.stat(a.x.dtype) } } end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

return { square_sum = function(x) return square_sum(x) end }
