--- The noised sample x_t = α(t)·x0 + σ(t)·noise and the velocity α'(t)·x0 + σ'(t)·noise.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local paths = { linear = 0, cosine = 1 }

local interpolant = op.define {
  name = "interpolant",
  inputs = { "x0", "noise", "t" },
  outputs = { "x_t", "velocity" },
  results = 2,
  ints = { "path" },
  inplace = { velocity = "noise" },
  shape = function(a)
    op.expect_one_dtype("interpolant", a, { "x0", "noise" })
    local x0 = a.x0.shape
    if #x0 == 0 or not op.same_shape(x0, a.noise.shape) then
      fail("interpolant: x0 is %s, noise is %s; they must have one shape [B,..]", text(x0), text(a.noise.shape))
    end
    if not op.same_shape(a.t.shape, { x0[1] }) or a.t.dtype ~= op.stat(a.x0.dtype) then
      fail("interpolant: x0 is %s, t is %s %s; expected %s [%d]", text(x0), a.t.dtype, text(a.t.shape),
        op.stat(a.x0.dtype), x0[1])
    end
    return { { x0, a.x0.dtype }, { x0, a.x0.dtype } }
  end,
  vjp = function() fail "interpolant: not differentiable; its inputs are data, noise and times" end,
  plain = function(a)
    local shape = { a.t.shape[1] }
    for d = 2, #a.x0.shape do shape[d] = 1 end
    local t = ops.reshape(a.t, shape)
    if a.path == 0 then return (1 - t) * a.x0 + t * a.noise, a.noise - a.x0 end
    local quarter = math.pi / 2
    local alpha, sigma = ops.cos(t * quarter), ops.sin(t * quarter)
    return alpha * a.x0 + sigma * a.noise, (alpha * a.noise - sigma * a.x0) * quarter
  end,
  flops = function(a) return 6 * op.numel(a.x0.shape) end,
}

return {
  --- x_t and the velocity, of x0, noise [B,..] at times t [B] from 0 (data) to 1 (noise). Options: path, "linear" or
  --- "cosine".
  interpolant = function(x0, noise, t, options)
    local o = op.options("interpolant", options, { path = "linear" })
    if not paths[o.path] then
      fail("interpolant: unknown path '%s'; expected 'linear' or 'cosine'", tostring(o.path))
    end
    return interpolant(x0, noise, t, { path = paths[o.path] })
  end,
}
