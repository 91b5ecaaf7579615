--- Repetition against places modulo the size.
return {
  { name = "tile of 2x3", inputs = { { shape = { 2, 3 } } }, gradients = { 1 },
    tolerance = { float32 = 1e-6, float64 = 1e-12 },
    run = function(_, x) return x:tile(3), x:tile(2, 1), x:tile { 2, 1, 2 }, x:tile(1, 1) end,
    reference = function(ops, x)
      local wide = ops.concat({ x, x }, 2)
      return ops.concat({ x, x, x }, 2), ops.concat({ x, x }, 1), ops.stack { wide, wide }, x
    end },
  { name = "tile of many dimensions", inputs = { { shape = { 1, 2, 1, 2, 1, 2, 1 } } },
    run = function(_, x) return x:tile(2, 2, 2, 2, 2, 2, 2):sum() end,
    reference = function(ops, x) return ops.sum(x) * 128 end },
}
