return {
  { name = "upsample_nearest by 2",
    run = function(ops, x) return ops.upsample_nearest(x) end,
    inputs = { { values = { { { { 1, 2 }, { 3, 4 } } } } } },
    reference = function()
      return { { { { 1, 1, 2, 2 }, { 1, 1, 2, 2 }, { 3, 3, 4, 4 }, { 3, 3, 4, 4 } } } }
    end,
    gradients = { 1 } },
  { name = "upsample_nearest by 3 of a wide picture",
    run = function(ops, x) return ops.upsample_nearest(x, 3) end,
    inputs = { { shape = { 2, 3, 2, 5 } } },
    reference = function(ops, x)
      return ops.resize(ops.reshape(x, { 2, 3, 10, 1 }), { size = { 10, 1 } }):reshape { 2, 3, 2, 1, 5, 1 }
        :tile(1, 1, 1, 3, 1, 3):reshape { 2, 3, 6, 15 }
    end,
    gradients = { 1 } },
  { name = "upsample_nearest of what is no picture",
    run = function(ops, x) return ops.upsample_nearest(x) end,
    inputs = { { shape = { 2, 3, 2 } } },
    error = "x is [2,3,2]; expected [B,C,H,W]" },
  { name = "upsample_nearest by no number",
    run = function(ops, x) return ops.upsample_nearest(x, 1.5) end,
    inputs = { { shape = { 2, 3, 2, 2 } } },
    error = "factor is 1.5; expected a whole number from 1" },
}
