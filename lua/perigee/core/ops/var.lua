--- Variance and standard deviation over any dimensions.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

--- x minus its mean, in the dtype of statistics; what the squares' sum is divided by; { keep = ... }; x's dtype.
local function centred(name, x, dims, options)
  op.expect(name, x)
  local o = options
  if type(o) ~= "table" then o = { keep = op.keep(name, o) } end
  o = op.options(name, o, { keep = false, correction = 1 })
  local dtype = core.is_floating[x.dtype] and x.dtype or "float32"
  x = ops.cast(x, op.stat(dtype))
  local mean = ops.mean(x, dims, { keep = true })
  local count = op.numel(x.shape) / math.max(op.numel(mean.shape), 1)
  return ops.sub(x, mean), math.max(count - o.correction, 0), { keep = o.keep }, dtype
end

--- Σ (x − mean)² / (n − correction) over the dimensions. Options: keep; correction, 1 (PyTorch's unbiased) unless told
--- otherwise. bfloat16 adds in float32.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean, correction?: number }
local function var(x, dims, options)
  local difference, count, keep, dtype = centred("var", x, dims, options)
  return ops.cast(ops.sum(ops.square(difference), dims, keep) * (1 / count), dtype)
end

--- The root of the variance. Where all elements are equal its gradient is 0.
---@param dims? integer|integer[]
---@param options? boolean|{ keep?: boolean, correction?: number }
local function std(x, dims, options)
  local difference, count, keep, dtype = centred("std", x, dims, options)
  return ops.cast(ops.norm(difference, 2, dims, keep) * (1 / math.sqrt(count)), dtype)
end

return { var = var, std = std, methods = { var = var, std = std } }
