--- Norms of vectors along any dimensions.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

--- s^(1/p), whose gradient is 0 where s is.
local function root(s, p)
  local zero = ops.equal(s, 0)
  return ops.where(zero, 0, ops.power(ops.where(zero, 1, s), 1 / p))
end

--- (Σ |x|^p)^(1/p) over the dimensions; p = 2 where it is left out. p = math.huge: the largest |x|; -math.huge: the
--- smallest; 0: how many are not 0. bfloat16 adds in float32. Of a vector of zeros the gradient is 0.
---@param p? number
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean }
local function norm(x, p, dims, options)
  op.expect("norm", x)
  p = p or 2
  if type(p) ~= "number" or not (p >= 1 or p == 0 or p == -math.huge) then
    op.fail("norm: p is %s; expected a number of at least 1, 0, or -math.huge", tostring(p))
  end
  local dtype = core.is_floating[x.dtype] and x.dtype or "float32"
  x = ops.cast(x, op.stat(dtype))
  local y
  if p == 0 then y = ops.sum(ops.cast(ops.not_equal(x, 0), x.dtype), dims, options)
  elseif p == 1 then y = ops.sum(ops.abs(x), dims, options)
  elseif p == 2 then y = root(ops.sum(ops.square(x), dims, options), 2)
  elseif p == math.huge then y = ops.max(ops.abs(x), dims, options)
  elseif p == -math.huge then y = ops.min(ops.abs(x), dims, options)
  else y = root(ops.sum(ops.power(ops.abs(x), p), dims, options), p) end
  return ops.cast(y, dtype)
end

return { norm = norm, methods = { norm = norm } }
