--- The largest element, or the mean, of every window of images (kernels/pool/pool.h).
local op = require "perigee.core.op"

local fail, text = op.fail, op.shape_text

local WINDOW = { "mean", "size", "stride", "padding" }

local backward = op.define {
  name = "pool_backward",
  inputs = { "dy", "x?" },
  outputs = { "dx" },
  ints = WINDOW,
  options = { "shape" },
  shape = function(a) return { { a.shape, a.dy.dtype } } end,
  flops = function(a) return op.numel(a.dy.shape) * a.size ^ 2 end,
}

local function places(length, a) return math.floor((length + 2 * a.padding - a.size) / a.stride) + 1 end

local function result_shape(a)
  local x = a.x.shape
  if #x ~= 4 or op.numel(x) == 0 then
    fail("pool: x is %s; expected [B,C,H,W], and no dimension of size 0", text(x))
  end
  if math.min(x[3], x[4]) + 2 * a.padding < a.size then
    fail("pool: x is %s, %dx%d with its padding; windows of %d are larger", text(x), x[3] + 2 * a.padding,
      x[4] + 2 * a.padding, a.size)
  end
  return { x[1], x[2], places(x[3], a), places(x[4], a) }
end

local pool = op.define {
  name = "pool",
  inputs = { "x" },
  ints = WINDOW,
  shape = function(a) return { { result_shape(a), a.x.dtype } } end,
  vjp = function(n, dy)
    return { x = backward(dy, n.mean == 0 and n.x or nil,
      { shape = n.x.shape, mean = n.mean, size = n.size, stride = n.stride, padding = n.padding }) }
  end,
  flops = function(a) return op.numel(a.y.shape) * a.size ^ 2 end,
}

local function is_whole(n, least) return type(n) == "number" and n % 1 == 0 and n >= least end

local function run(name, mean, x, size, options)
  local o = op.options(name, options, { stride = size, padding = 0 })
  if not is_whole(size, 1) then fail("%s: size is %s; expected a whole number from 1", name, tostring(size)) end
  if not is_whole(o.stride, 1) then
    fail("%s: stride is %s; expected a whole number from 1", name, tostring(o.stride))
  end
  if not is_whole(o.padding, 0) or 2 * o.padding > size then
    fail("%s: padding is %s; expected a whole number from 0 to half of size %d", name, tostring(o.padding), size)
  end
  return pool(x, { mean = mean, size = size, stride = o.stride, padding = o.padding })
end

return {
  --- The largest element of every window of size·size in x [B,C,H,W]: [B,C,P,Q], P = ⌊(H + 2·padding − size) /
  --- stride⌋ + 1. Options: stride (size), padding (0), places on every side that don't count.
  ---@param size integer
  ---@param options? { stride?: integer, padding?: integer }
  max_pool = function(x, size, options) return run("max_pool", 0, x, size, options) end,

  --- The mean of every window; places of the padding don't count, in the divisor neither.
  ---@param size integer
  ---@param options? { stride?: integer, padding?: integer }
  average_pool = function(x, size, options) return run("average_pool", 1, x, size, options) end,
}
