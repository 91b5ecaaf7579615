--- Shifts against places modulo the size.
return {
  { name = "roll of 5x4", inputs = { { shape = { 5, 4 } } }, gradients = { 1 }, tolerance = 0,
    gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
    run = function(_, x)
      return x:roll(2, 1), x:roll(-3, -1), x:roll(0, 1), x:roll(4, 2), x:roll({ 6, 1 }, { 1, 2 }), x:roll(7)
    end,
    reference = function(ops, x)
      local t = x:totable()
      local function rolled(down, right)
        local rows = {}
        for i = 1, 5 do
          rows[i] = {}
          for j = 1, 4 do rows[i][j] = t[(i - 1 - down) % 5 + 1][(j - 1 - right) % 4 + 1] end
        end
        return rows
      end
      local flat, all = ops.reshape(x, { 20 }):totable(), {}
      for k = 1, 20 do all[k] = flat[(k - 1 - 7) % 20 + 1] end
      return rolled(2, 0), rolled(0, -3), rolled(0, 0), rolled(0, 4), rolled(6, 1),
        ops.reshape(require("perigee.core").tensor.tensor(all, "float64"), { 5, 4 })
    end },
}
