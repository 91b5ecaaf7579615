--- The optimiser's ops over flat buffers: the squared norm of a gradient, and one step of AdamW in place.
local op = require "perigee.core.op"

local square_sum = op.define {
  name = "square_sum",
  inputs = { "x" },
  outputs = { "sum" },
  shape = function(a) return { { {}, op.stat(a.x.dtype) } } end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

local names = { "parameters", "first_moment", "second_moment", "average", "working", "gradient", "hyper", "square_sum" }

local adamw = op.define {
  name = "adamw",
  inputs = { "parameters", "first_moment", "second_moment", "average?", "working?", "gradient", "hyper", "square_sum" },
  outputs = {},
  results = 0,
  mutates = { "parameters", "first_moment", "second_moment", "average", "working" },
  instance = function(n) return n.inputs[1].dtype end,
  shape = function(a)
    local count = op.numel(a.parameters.shape)
    for k = 2, 6 do
      local x = a[names[k]]
      if x and op.numel(x.shape) ~= count then
        op.fail("adamw: parameters are %s, %s is %s", op.shape_text(a.parameters.shape), names[k],
          op.shape_text(x.shape))
      end
    end
    return {}
  end,
  flops = function(a) return 15 * op.numel(a.parameters.shape) end,
}

return {
  --- Σ x² as one number.
  square_sum = function(x) return square_sum(x) end,

  --- One step of AdamW in place; the fields are named as in kernels/adamw/adamw.h: parameters, first_moment,
  --- second_moment, average (optional), working (optional), gradient, hyper [8], square_sum.
  adamw = function(fields)
    for key in pairs(fields) do
      local known = false
      for _, name in ipairs(names) do known = known or name == key end
      if not known then op.fail("adamw: unknown field '%s'", tostring(key)) end
    end
    local list = {}
    for k, name in ipairs(names) do list[k] = fields[name] or nil end
    adamw(list[1], list[2], list[3], list[4], list[5], list[6], list[7], list[8])
  end,
}
