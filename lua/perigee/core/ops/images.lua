--- Pixels to model values and back: bytes [B,H,W,C] against [B,C,H,W].
local op = require "perigee.core.op"

local fail, text = op.fail, op.shape_text

local keys = { "mean_1", "mean_2", "mean_3", "mean_4", "std_1", "std_2", "std_3", "std_4" }

local to_real = op.define {
  name = "images_to_real",
  inputs = { "x" },
  floats = keys,
  options = { "dtype" },
  instance = function(n) return n.outputs[1].dtype end,
  shape = function(a)
    local shape = a.x.shape
    if #shape ~= 4 or shape[4] > 4 or a.x.dtype ~= "uint8" then
      fail("images_to_real: x is %s %s; expected uint8 [B,H,W,C] with at most 4 channels", a.x.dtype, text(shape))
    end
    return { { { shape[1], shape[4], shape[2], shape[3] }, a.dtype } }
  end,
  flops = function(a) return 3 * op.numel(a.x.shape) end,
}

local to_bytes = op.define {
  name = "images_to_bytes",
  inputs = { "x" },
  shape = function(a)
    local shape = a.x.shape
    if #shape ~= 4 then fail("images_to_bytes: x is %s; expected [B,C,H,W]", text(shape)) end
    return { { { shape[1], shape[3], shape[4], shape[2] }, "uint8" } }
  end,
  vjp = function() fail "images_to_bytes: not differentiable" end,
  flops = function(a) return 3 * op.numel(a.x.shape) end,
}

--- One number for every channel, or a list with one for each.
local function per_channel(name, value, channel, channels)
  if type(value) == "number" then return value end
  if type(value) ~= "table" or #value ~= channels then
    fail("images_to_real: %s must be a number or a list of %d, one a channel", name, channels)
  end
  return value[channel]
end

return {
  --- (x/255 − mean)/std, channels first. Options: mean, std, a number or a list (0.5: [−1, 1]); dtype (float32).
  images_to_real = function(x, options)
    local o = op.options("images_to_real", options, { mean = 0.5, std = 0.5, dtype = "float32" })
    local channels = x.shape[4] or 0
    local attributes = { dtype = o.dtype }
    for c = 1, 4 do
      attributes["mean_" .. c] = c <= channels and per_channel("mean", o.mean, c, channels) or 0
      attributes["std_" .. c] = c <= channels and per_channel("std", o.std, c, channels) or 1
    end
    return to_real(x, attributes)
  end,

  --- Values in [−1, 1] as bytes, channels last: 255·(x + 1)/2, cut to a whole number in 0..255.
  images_to_bytes = function(x) return to_bytes(x) end,
}
