--- The optimiser's ops over flat buffers: the squared norm of a gradient, and one step of AdamW in place.
local op = require "perigee.core.op"

local square_sum = op.define {
  name = "square_sum",
  inputs = { "x" },
  outputs = { "sum" },
  shape = function(a) return { { {}, op.stat(a.x.dtype) } } end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
}

local adamw = op.define {
  name = "adamw",
  inputs = { "parameters", "first_moment", "second_moment", "average?", "working?", "gradient", "hyper", "square_sum" },
  outputs = {},
  results = 0,
  mutates = { "parameters", "first_moment", "second_moment", "average", "working" },
  instance = function(n) return n.inputs[1].dtype end,
  shape = function(a)
    local count = op.numel(a.parameters.shape)
    for _, name in ipairs { "first_moment", "second_moment", "average", "working", "gradient" } do
      local x = a[name]
      if x and op.numel(x.shape) ~= count then
        op.fail("adamw: parameters are %s, %s is %s", op.shape_text(a.parameters.shape), name, op.shape_text(x.shape))
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
    local list, known = {}, {}
    for k, name in ipairs(adamw.inputs) do list[k], known[name] = fields[name] or nil, true end
    for key in pairs(fields) do
      if not known[key] then op.fail("adamw: unknown field '%s'", tostring(key)) end
    end
    adamw(unpack(list, 1, #adamw.inputs))
  end,
}
