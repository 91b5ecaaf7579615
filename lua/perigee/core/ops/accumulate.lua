--- Adds a piece's gradients to their sum, in place.
local op = require "perigee.core.op"

local accumulate = op.define {
  name = "accumulate",
  inputs = { "total", "x" },
  outputs = {},
  results = 0,
  mutates = { "total" },
  ints = { "first" }, floats = { "scale" },
  defaults = { scale = 1, first = false },
  instance = function(n) return n.inputs[2].dtype end,
  shape = function(a)
    if op.numel(a.total.shape) ~= op.numel(a.x.shape)
      or (a.total.dtype ~= a.x.dtype and a.total.dtype ~= op.stat(a.x.dtype)) then
      op.fail("accumulate: total is %s %s, x is %s %s", a.total.dtype, op.shape_text(a.total.shape), a.x.dtype,
        op.shape_text(a.x.shape))
    end
    return {}
  end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

return {
  --- total = total + scale·x in place; with first = true, total = scale·x. total has x's dtype, or that of its
  --- statistics.
  accumulate = function(total, x, options) return accumulate(total, x, options) end,
}
