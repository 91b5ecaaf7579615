--- Pixels to model values and back: bytes [B,H,W,C] against [B,C,H,W].
local op = require "perigee.core.op"

local fail, text = op.fail, op.shape_text

local keys = { "scale_1", "scale_2", "scale_3", "scale_4", "offset_1", "offset_2", "offset_3", "offset_4" }

local images = op.define {
  name = "images",
  inputs = { "x" },
  floats = keys,
  options = { "dtype" },
  instance = function(n) return n.outputs[1].dtype end,
  shape = function(a)
    local shape = a.x.shape
    if #shape ~= 4 or shape[4] > 4 or a.x.dtype ~= "uint8" then
      fail("images: x is %s %s; expected uint8 [B,H,W,C] with at most 4 channels", a.x.dtype, text(shape))
    end
    return { { { shape[1], shape[4], shape[2], shape[3] }, a.dtype } }
  end,
  flops = function(a) return 2 * op.numel(a.x.shape) end,
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
  if channel > channels then return 0 end
  if type(value) == "number" then return value end
  if type(value) ~= "table" or #value ~= channels then
    fail("images: %s must be a number or a list of %d, one a channel", name, channels)
  end
  return value[channel]
end

return {
  --- scale·x + offset of bytes [B,H,W,C], channels first: real [B,C,H,W]. Options: scale, offset, each a number or a
  --- list with one a channel (2/255 and −1: [−1, 1]); dtype (float32).
  images = function(x, options)
    local o = op.options("images", options, { scale = 2 / 255, offset = -1, dtype = "float32" })
    local channels, attributes = x.shape[4] or 0, { dtype = o.dtype }
    for c = 1, 4 do
      attributes["scale_" .. c] = per_channel("scale", o.scale, c, channels)
      attributes["offset_" .. c] = per_channel("offset", o.offset, c, channels)
    end
    return images(x, attributes)
  end,

  --- Values in [−1, 1] as bytes, channels last: 255·(x + 1)/2, cut to a whole number in 0..255.
  images_to_bytes = function(x) return to_bytes(x) end,
}
