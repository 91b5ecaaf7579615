--- log Σ exp(x) against sums over numbers.
local huge = math.huge
return {
  { name = "logsumexp of 3x31x2", inputs = { { shape = { 3, 31, 2 } } }, gradients = { 1 },
    tolerance = { float32 = 1e-5, bfloat16 = 1e-2, float64 = 1e-12 },
    run = function(_, x) return x:logsumexp(2), x:logsumexp(), x:logsumexp({ 1, 3 }, { keep = true }) end,
    reference = function(ops, x)
      local function of(...) return ops.log(ops.sum(ops.exp(x), ...)) end
      return of(2), of(), of({ 1, 3 }, { keep = true })
    end },
  { name = "logsumexp of large numbers and infinities", dtypes = { "float32", "float64" },
    inputs = { { values = { { 1000, 1000 }, { -1000, -1000 }, { -huge, 2 }, { -huge, -huge }, { huge, 1 } } } },
    run = function(_, x) return x:logsumexp(2) end,
    reference = function() return { 1000 + math.log(2), -1000 + math.log(2), 2, -huge, huge } end },
}
