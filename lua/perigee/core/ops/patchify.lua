--- Images as sequences of square patches, and back.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local orders = { channels_first = 0, channels_last = 1 }
local order_names = { [0] = "channels_first", [1] = "channels_last" }

local function order_code(name, order)
  return orders[order]
    or fail("%s: unknown order '%s'; expected 'channels_first' or 'channels_last'", name, tostring(order))
end

local patchify = op.define {
  name = "patchify",
  inputs = { "images" },
  outputs = { "tokens" },
  ints = { "patch", "order" },
  shape = function(a)
    local shape, p = a.images.shape, a.patch
    if #shape ~= 4 or type(p) ~= "number" or p < 1 or p % 1 ~= 0 or shape[3] % p ~= 0 or shape[4] % p ~= 0 then
      fail("patchify: images are %s, the patch size is %s; expected [B,C,H,W] with H and W multiples of it",
        text(shape), tostring(p))
    end
    return { { { shape[1], shape[3] / p * (shape[4] / p), shape[2] * p * p }, a.images.dtype } }
  end,
  vjp = function(n, dy)
    local shape = n.images.shape
    local size = { shape[3], shape[4] }
    return { images = ops.unpatchify(dy, { patch = n.patch, size = size, order = order_names[n.order] }) }
  end,
  plain = function(a)
    local s, p = a.images.shape, a.patch
    local cut = ops.reshape(a.images, { s[1], s[2], s[3] / p, p, s[4] / p, p })
    local turned = ops.permute(cut, a.order == 0 and { 1, 3, 5, 2, 4, 6 } or { 1, 3, 5, 4, 6, 2 })
    return ops.reshape(turned, { s[1], s[3] / p * (s[4] / p), s[2] * p * p })
  end,
  flops = function() return 0 end,
}

local unpatchify = op.define {
  name = "unpatchify",
  inputs = { "tokens" },
  outputs = { "images" },
  ints = { "patch", "order" },
  options = { "rows", "columns" },
  shape = function(a)
    local shape, p = a.tokens.shape, a.patch
    if #shape ~= 3 or a.rows * a.columns ~= shape[2] or shape[3] % (p * p) ~= 0 then
      fail("unpatchify: tokens are %s; expected [B,%d·%d,C·%d·%d]", text(shape), a.rows, a.columns, p, p)
    end
    return { { { shape[1], shape[3] / (p * p), a.rows * p, a.columns * p }, a.tokens.dtype } }
  end,
  vjp = function(n, dy)
    return { tokens = ops.patchify(dy, { patch = n.patch, order = order_names[n.order] }) }
  end,
  plain = function(a)
    local s, p = a.tokens.shape, a.patch
    local channels = s[3] / (p * p)
    local cut, order
    if a.order == 0 then
      cut, order = { s[1], a.rows, a.columns, channels, p, p }, { 1, 4, 2, 5, 3, 6 }
    else
      cut, order = { s[1], a.rows, a.columns, p, p, channels }, { 1, 6, 2, 4, 3, 5 }
    end
    return ops.reshape(ops.permute(ops.reshape(a.tokens, cut), order), { s[1], channels, a.rows * p, a.columns * p })
  end,
  flops = function() return 0 end,
}

return {
  --- [B,C,H,W] as [B,(H/p)(W/p),C·p·p], patches row by row. Options: patch; order of a patch's elements,
  --- "channels_first" (C,p,p, the default) or "channels_last" (p,p,C).
  patchify = function(images, options)
    local o = op.options("patchify", options, { patch = false, order = "channels_first" })
    return patchify(images, { patch = o.patch, order = order_code("patchify", o.order) })
  end,

  --- The inverse. Options: patch; order; size, { height, width } of the images (square by default); channels, which is
  --- only checked.
  unpatchify = function(tokens, options)
    local o = op.options("unpatchify", options,
      { patch = false, order = "channels_first", size = false, channels = false })
    local patch, n = o.patch, tokens.shape[2] or 0
    if type(patch) ~= "number" or patch < 1 or patch % 1 ~= 0 then
      fail("unpatchify: the patch size is %s; expected a positive whole number", tostring(patch))
    end
    local side = math.floor(math.sqrt(n) + 0.5)
    local rows, columns = side, side
    if o.size then rows, columns = o.size[1] / patch, o.size[2] / patch end
    if rows % 1 ~= 0 or columns % 1 ~= 0 or rows * columns ~= n then
      fail("unpatchify: tokens are %s; %d tokens with patches of %d are not %s", text(tokens.shape), n, patch,
        o.size and "images of " .. text(o.size) or "a square image: give its size")
    end
    if o.channels and tokens.shape[3] ~= o.channels * patch * patch then
      fail("unpatchify: tokens are %s; %d channels and patches of %d make a width of %d", text(tokens.shape),
        o.channels, patch, o.channels * patch * patch)
    end
    local order = order_code("unpatchify", o.order)
    return unpatchify(tokens, { patch = patch, order = order, rows = rows, columns = columns })
  end,
}
