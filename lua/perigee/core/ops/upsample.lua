--- Enlarging pictures by repeating their pixels.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

return {
  --- x [B,C,H,W] -> [B,C,factor·H,factor·W]: every pixel becomes a square of equal ones (PyTorch's interpolate with
  --- mode "nearest" and a whole scale_factor).
  ---@param factor? integer  2
  upsample_nearest = function(x, factor)
    op.expect("upsample_nearest", x)
    factor = factor or 2
    if type(factor) ~= "number" or factor % 1 ~= 0 or factor < 1 then
      op.fail("upsample_nearest: factor is %s; expected a whole number from 1", tostring(factor))
    elseif #x.shape ~= 4 then
      op.fail("upsample_nearest: x is %s; expected [B,C,H,W]", op.shape_text(x.shape))
    end
    local b, c, h, w = unpack(x.shape)
    local each = ops.expand(ops.reshape(x, { b, c, h, 1, w, 1 }), { b, c, h, factor, w, factor })
    return ops.reshape(each, { b, c, h * factor, w * factor })
  end,
}
