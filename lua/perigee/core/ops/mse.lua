--- The mean squared error, over all elements and over each sample's.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local backward = op.define {
  name = "mse_backward",
  inputs = { "coefficient?", "sample_coefficient?", "a", "b" },
  outputs = { "da", "db" },
  results = 2,
  optional_outputs = { db = true },
  instance = function(n) return n.a.dtype end,
  inplace = { da = "a" },
  shape = function(a) return { { a.a.shape, a.a.dtype }, { a.a.shape, a.a.dtype } } end,
  flops = function(a) return 2 * op.numel(a.a.shape) end,
}

local mse = op.define {
  name = "mse",
  inputs = { "a", "b" },
  outputs = { "loss", "per_sample" },
  results = 2,
  optional_outputs = { per_sample = true },
  shape = function(a)
    op.expect_one_dtype("mse", a, { "a", "b" })
    if not op.same_shape(a.a.shape, a.b.shape) or op.numel(a.a.shape) == 0 then
      fail("mse: a is %s, b is %s; they must have one shape, not empty", text(a.a.shape), text(a.b.shape))
    end
    local stat = op.stat(a.a.dtype)
    return { { {}, stat }, { { a.a.shape[1] or 1 }, stat } }
  end,
  vjp = function(n, dloss, dsample)
    local da, db = backward(dloss, dsample, n.a, n.b)
    return { a = da, b = n:needs "b" and db }
  end,
  plain = function(a)
    local stat, others = op.stat(a.a.dtype), {}
    local d = a.a:to(stat) - a.b:to(stat)
    for k = 2, #d.shape do others[k - 1] = k end
    return ops.mean(d * d), #others > 0 and ops.mean(d * d, others) or ops.reshape(d * d, { op.numel(d.shape) })
  end,
  flops = function(a) return 3 * op.numel(a.a.shape) end,
}

return {
  --- The mean of (a − b)² over all elements.
  mse = function(a, b) return (mse(a, b)) end,

  --- The same over each sample's elements: [B].
  mse_per_sample = function(a, b) return (select(2, mse(a, b))) end,
}
