--- Images and token grids resampled to another size, as PyTorch's interpolate(align_corners=False) does.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local modes = { bilinear = 0, bicubic = 1 }
local ints = { "mode", "antialias", "corner", "tokens", "height", "width", "to_height", "to_width", "skip" }

local function same_attributes(n)
  local attributes = {}
  for _, key in ipairs(ints) do attributes[key] = n[key] end
  return attributes
end

--- The inputs of y: every element of it reads up to 2 (bilinear) or 4 (bicubic) inputs an axis, more with antialias.
local function flops_of(n, y)
  local reach = n.mode == 0 and 2 or 4
  local function taps(from, to) return reach * (n.antialias == 1 and math.max(from / to, 1) or 1) end
  local down, across = taps(n.height, n.to_height), taps(n.width, n.to_width)
  return 2 * op.numel(y.shape) * (across + down * n.width / n.to_width)
end

local backward = op.define {
  name = "resize_backward",
  inputs = { "dy" },
  outputs = { "dx" },
  ints = ints,
  options = { "shape" },
  shape = function(a) return { { a.shape, a.dy.dtype } } end,
  flops = function(n) return flops_of(n, n.dy) end,
}

local resize = op.define {
  name = "resize",
  inputs = { "x" },
  outputs = { "y" },
  ints = ints,
  shape = function(a)
    local shape = { a.x.shape[1] }
    if a.tokens == 1 then
      shape[2] = a.to_height * a.to_width
      for d = 3, #a.x.shape do shape[d] = a.x.shape[d] end
    else
      shape[2], shape[3], shape[4] = a.x.shape[2], a.to_height, a.to_width
    end
    return { { shape, a.x.dtype } }
  end,
  vjp = function(n, dy)
    local attributes = same_attributes(n)
    attributes.shape = n.x.shape
    return { x = backward(dy, attributes) }
  end,
  flops = function(n) return flops_of(n, n.y) end,
}

local function size_of(name, key, size)
  if type(size) == "number" then size = { size, size } end
  if type(size) ~= "table" or #size ~= 2 then fail("%s: %s must be { height, width }", name, key) end
  for _, n in ipairs(size) do
    if type(n) ~= "number" or n < 1 or n % 1 ~= 0 then
      fail("%s: %s is { %s, %s }; sizes are positive whole numbers", name, key, tostring(size[1]), tostring(size[2]))
    end
  end
  return size[1], size[2]
end

local function mode_code(name, mode)
  return modes[mode] or fail("%s: unknown mode '%s'; expected 'bilinear' or 'bicubic'", name, tostring(mode))
end

return {
  --- Images [B,C,H,W] at another size. Options: size, { height, width }; mode, "bilinear" (default) or "bicubic";
  --- antialias; corner: pixel i of the result lies at i·H/height of x, without half-pixel centres, as TensorFlow's
  --- first resize_bilinear has it.
  ---@param options { size: integer|integer[], mode?: string, antialias?: boolean, corner?: boolean }
  resize = function(x, options)
    local o = op.options("resize", options, { size = false, mode = "bilinear", antialias = false, corner = false })
    if o.corner and o.antialias then fail "resize: corner and antialias exclude each other" end
    local mode = mode_code("resize", o.mode)
    local height, width = size_of("resize", "size", o.size)
    if #x.shape ~= 4 then fail("resize: x is %s; expected [B,C,H,W]", text(x.shape)) end
    if height == x.shape[3] and width == x.shape[4] then return x end
    return resize(x, { mode = mode, antialias = o.antialias, corner = o.corner, tokens = 0, height = x.shape[3],
      width = x.shape[4], to_height = height, to_width = width, skip = 0 })
  end,

  --- Tokens [B,skip + H·W,..], row by row, at another grid: [B,H2·W2,..]. Options: from, to, { rows, columns }; mode,
  --- antialias as above; skip, the number of leading tokens (class, registers) to leave out.
  resize_tokens = function(x, options)
    local o = op.options("resize_tokens", options,
      { from = false, to = false, mode = "bilinear", antialias = false, skip = 0 })
    local mode = mode_code("resize_tokens", o.mode)
    local height, width = size_of("resize_tokens", "from", o.from)
    local to_height, to_width = size_of("resize_tokens", "to", o.to)
    if #x.shape < 2 or x.shape[2] ~= o.skip + height * width then
      fail("resize_tokens: x is %s; expected [B,%d + %d·%d,..]", text(x.shape), o.skip, height, width)
    end
    if height == to_height and width == to_width then
      return o.skip > 0 and ops.narrow(x, 2, o.skip + 1, height * width) or x
    end
    return resize(x, { mode = mode, antialias = o.antialias, corner = false, tokens = 1, height = height,
      width = width, to_height = to_height, to_width = to_width, skip = o.skip })
  end,
}
