--- log Σ exp(x) over any dimensions, without overflow.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

--- bfloat16 adds in float32.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean }
local function logsumexp(x, dims, options)
  op.expect("logsumexp", x)
  local dtype = core.is_floating[x.dtype] and x.dtype or "float32"
  x = ops.cast(x, op.stat(dtype))
  local most = ops.stop_gradient(ops.max(x, dims, { keep = true }))
  most = ops.where(ops.isfinite(most), most, 0) -- all −∞, or a +∞
  local sum = ops.sum(ops.exp(ops.sub(x, most)), dims, options)
  local y = ops.add(ops.log(sum), ops.reshape(most, sum.shape))
  return ops.cast(y, dtype)
end

return { logsumexp = logsumexp, methods = { logsumexp = logsumexp } }
