--- Sinusoids of the time: cos ‖ sin at ⌊width/2⌋ frequencies from 1 down to 1/max_period.
local op = require "perigee.core.op"

local fail, text = op.fail, op.shape_text

local timestep_embedding = op.define {
  name = "timestep_embedding",
  inputs = { "t" },
  outputs = { "y" },
  floats = { "max_period" },
  options = { "width", "dtype" },
  instance = function(n) return n.outputs[1].dtype end,
  shape = function(a)
    if #a.t.shape ~= 1 or a.t.dtype ~= op.stat(a.dtype) then
      fail("timestep_embedding: t is %s %s; expected %s [B]", a.t.dtype, text(a.t.shape), op.stat(a.dtype))
    end
    if type(a.width) ~= "number" or a.width < 1 or a.width % 1 ~= 0 then
      fail("timestep_embedding: width is %s; expected a positive whole number", tostring(a.width))
    end
    return { { { a.t.shape[1], a.width }, a.dtype } }
  end,
  vjp = function() fail "timestep_embedding: not differentiable; its input is a batch of times" end,
  flops = function(a) return 20 * a.t.shape[1] * a.width end,
}

return {
  --- [B,width] of times t [B]. Options: width (256); max_period (10000); dtype (t's).
  timestep_embedding = function(t, options)
    local o = op.options("timestep_embedding", options, { width = 256, max_period = 10000, dtype = t.dtype })
    return timestep_embedding(t, { width = o.width, max_period = o.max_period, dtype = o.dtype })
  end,
}
