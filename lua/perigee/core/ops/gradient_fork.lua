--- The sum of two gradients that meet at one activation, and per sample the products that say how they agree.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

--- [B, n] in the dtype of the products.
local function rows_of(x)
  local batch = x.shape[1]
  return ops.reshape(x:to(op.stat(x.dtype)), { batch, op.numel(x.shape) / batch })
end

--- Σ over a sample of x·y: [B,1].
local function product(x, y) return ops.sum(x * y, 2, { keep = true }) end

local gradient_fork = op.define {
  name = "gradient_fork",
  inputs = { "a", "b" },
  outputs = { "sum", "products" },
  results = 2,
  inplace = { sum = "a" },
  shape = function(a)
    op.expect_one_dtype("gradient_fork", a, { "a", "b" })
    if #a.a.shape == 0 or not op.same_shape(a.a.shape, a.b.shape) or op.numel(a.a.shape) == 0 then
      fail("gradient_fork: a is %s, b is %s; they must have one shape [B,..], not empty", text(a.a.shape),
        text(a.b.shape))
    end
    return { { a.a.shape, a.a.dtype }, { { a.a.shape[1], 3 }, op.stat(a.a.dtype) } }
  end,
  vjp = function(n, dsum, dproducts)
    if not dproducts then return { a = dsum, b = dsum } end
    local a, b = rows_of(n.a), rows_of(n.b)
    local ab, aa, bb = unpack(ops.chunk(dproducts, 3, 2))
    local function gradient(x)
      x = ops.reshape(x, n.a.shape):to(n.a.dtype)
      return dsum and x + dsum or x
    end
    return { a = gradient(ab * b + aa * a * 2), b = gradient(ab * a + bb * b * 2) }
  end,
  plain = function(n)
    local a, b = rows_of(n.a), rows_of(n.b)
    return n.a + n.b, ops.concat({ product(a, b), product(a, a), product(b, b) }, 2)
  end,
  flops = function(a) return 7 * op.numel(a.a.shape) end,
}

return {
  --- a + b, and per sample a·b, |a|² and |b|²: [B,3]. The cosine of two gradients at the cost of adding them.
  gradient_fork = function(a, b) return gradient_fork(a, b) end,
}
