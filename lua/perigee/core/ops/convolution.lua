--- Convolution of images (kernels/convolution/convolution.h): cross-correlation with zeros around the images, without
--- groups or dilation.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local WINDOW = { "stride", "top", "bottom", "left", "right" } -- attributes of all three kernels

--- The attributes of a backward pass; height and width: those of its result.
local function window_of(n, height, width)
  local window = { height = height, width = width }
  for _, key in ipairs(WINDOW) do window[key] = n[key] end
  return window
end

local backward_input = op.define {
  name = "convolution_backward_input",
  inputs = { "dy", "weight" },
  outputs = { "dx" },
  ints = WINDOW,
  options = { "height", "width" },
  shape = function(a)
    return { { { a.dy.shape[1], a.weight.shape[2], a.height, a.width }, a.dy.dtype } }
  end,
  flops = function(a) return 2 * op.numel(a.dy.shape) * op.numel(a.weight.shape) / a.weight.shape[1] end,
}

local backward_weight = op.define {
  name = "convolution_backward_weight",
  inputs = { "dy", "x" },
  outputs = { "dweight" },
  ints = WINDOW,
  options = { "height", "width" },
  shape = function(a)
    return { { { a.dy.shape[2], a.x.shape[2], a.height, a.width }, a.dy.dtype } }
  end,
  flops = function(a) return 2 * op.numel(a.dy.shape) * a.x.shape[2] * a.height * a.width end,
}

--- Places of a kernel of `size` along `length` pixels.
local function places(length, size, stride) return math.floor((length - size) / stride) + 1 end

local function result_shape(a)
  op.expect_one_dtype("convolution", a, { "x", "weight", "bias" })
  local x, weight = a.x.shape, a.weight.shape
  if #x ~= 4 or #weight ~= 4 or x[2] ~= weight[2] or op.numel(x) == 0 or op.numel(weight) == 0 then
    fail("convolution: x is %s, weight is %s; expected [B,C,H,W] and [O,C,kh,kw], and no dimension of size 0", text(x),
      text(weight))
  end
  if a.bias and not op.same_shape(a.bias.shape, { weight[1] }) then
    fail("convolution: weight is %s, bias is %s; expected [%d]", text(weight), text(a.bias.shape), weight[1])
  end
  local height, width = x[3] + a.top + a.bottom, x[4] + a.left + a.right
  if height < weight[3] or width < weight[4] then
    fail("convolution: x is %s, %dx%d with its padding; weight is %s, a larger kernel", text(x), height, width,
      text(weight))
  end
  return { x[1], weight[1], places(height, weight[3], a.stride), places(width, weight[4], a.stride) }
end

local convolution = op.define {
  name = "convolution",
  inputs = { "x", "weight", "bias?" },
  ints = WINDOW,
  shape = function(a) return { { result_shape(a), a.x.dtype } } end,
  vjp = function(n, dy)
    local x, weight = n.x.shape, n.weight.shape
    return {
      x = n:needs "x" and backward_input(dy, n.weight, window_of(n, x[3], x[4])) or nil,
      weight = n:needs "weight" and backward_weight(dy, n.x, window_of(n, weight[3], weight[4])) or nil,
      bias = n.bias and n:needs "bias" and ops.sum(dy, { 1, 3, 4 }) or nil,
    }
  end,
  flops = function(a) return 2 * op.numel(a.y.shape) * op.numel(a.weight.shape) / a.weight.shape[1] end,
}

--- The window of a 3×3 kernel over images with a zero around, for the backward pass.
local function window_3x3(shape) return { stride = 1, top = 1, bottom = 1, left = 1, right = 1, height = shape[1],
  width = shape[2] } end

--- The gradient of images out of that of the enlarged ones: sums of squares of pixels.
local function shrink(dx, enlarge)
  if enlarge == 1 then return dx end
  local b, c, h, w = unpack(dx.shape)
  return ops.sum(ops.reshape(dx, { b, c, h / enlarge, enlarge, w / enlarge, enlarge }), { 4, 6 })
end

local convolution_3x3 = op.define {
  name = "convolution_3x3",
  inputs = { "x", "weight", "bias?" },
  ints = { "enlarge" },
  shape = function(a)
    op.expect_one_dtype("convolution_3x3", a, { "x", "weight", "bias" })
    local x, weight = a.x.shape, a.weight.shape
    if #x ~= 4 or #weight ~= 4 or x[2] ~= weight[2] or weight[3] ~= 3 or weight[4] ~= 3 or op.numel(x) == 0
      or op.numel(weight) == 0 then
      fail("convolution_3x3: x is %s, weight is %s; expected [B,C,H,W] and [O,C,3,3], and no dimension of size 0",
        text(x), text(weight))
    elseif a.bias and not op.same_shape(a.bias.shape, { weight[1] }) then
      fail("convolution_3x3: weight is %s, bias is %s; expected [%d]", text(weight), text(a.bias.shape), weight[1])
    end
    return { { { x[1], weight[1], a.enlarge * x[3], a.enlarge * x[4] }, a.x.dtype } }
  end,
  vjp = function(n, dy)
    local x = n.x.shape
    local function enlarged() return n.enlarge == 1 and n.x or ops.upsample_nearest(n.x, n.enlarge) end
    return {
      x = n:needs "x" and shrink(backward_input(dy, n.weight, window_3x3 { n.enlarge * x[3], n.enlarge * x[4] }),
        n.enlarge) or nil,
      weight = n:needs "weight" and backward_weight(dy, enlarged(), window_3x3 { 3, 3 }) or nil,
      bias = n.bias and n:needs "bias" and ops.sum(dy, { 1, 3, 4 }) or nil,
    }
  end,
  plain = function(a)
    local x = a.enlarge == 1 and a.x or ops.upsample_nearest(a.x, a.enlarge)
    return ops.convolution(x, a.weight, a.bias, { padding = 1 })
  end,
  flops = function(a) return 2 * op.numel(a.y.shape) * op.numel(a.weight.shape) / a.weight.shape[1] end,
}

local function is_whole(n, least) return type(n) == "number" and n % 1 == 0 and n >= least end

--- Top, bottom, left and right of a padding.
local function sides(padding)
  local given = type(padding) == "table" and padding or { padding, padding, padding, padding }
  for k = 1, 4 do
    if not is_whole(given[k], 0) or #given ~= 4 then
      fail("convolution: padding is %s; expected a whole number, or { top, bottom, left, right }",
        type(padding) == "table" and text(padding) or tostring(padding))
    end
  end
  return unpack(given)
end

return {
  --- x [B,C,H,W] with weight [O,C,kh,kw] and bias [O] (or nil): [B,O,P,Q], P = ⌊(H + top + bottom − kh) / stride⌋ + 1.
  --- Options: stride, of both directions (1); padding, zeros on all sides or { top, bottom, left, right } (0).
  ---@param options? { stride?: integer, padding?: integer|integer[] }
  convolution = function(x, weight, bias, options)
    local o = op.options("convolution", options, { stride = 1, padding = 0 })
    if not is_whole(o.stride, 1) then
      fail("convolution: stride is %s; expected a whole number from 1", tostring(o.stride))
    end
    local top, bottom, left, right = sides(o.padding)
    return convolution(x, weight, bias,
      { stride = o.stride, top = top, bottom = bottom, left = left, right = right })
  end,

  --- x [B,C,H,W] with weight [O,C,3,3] and bias [O] (or nil), with a zero around: [B,O,H,W], or [B,O,2·H,2·W] with
  --- enlarge = 2, in which every pixel of x is first made a square of four. On the CPU, by Winograd's transforms: more
  --- than twice as fast as `convolution`, with other last bits.
  ---@param options? { enlarge?: integer }
  convolution_3x3 = function(x, weight, bias, options)
    local o = op.options("convolution_3x3", options, { enlarge = 1 })
    if o.enlarge ~= 1 and o.enlarge ~= 2 then
      fail("convolution_3x3: enlarge is %s; expected 1 or 2", tostring(o.enlarge))
    end
    return convolution_3x3(x, weight, bias, { enlarge = o.enlarge })
  end,
}
