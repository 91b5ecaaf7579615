local core = require "perigee.core"
local op = require "perigee.core.op"

local tolerance = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 2e-2 }
local cases = {
  { name = "gated_residual by slices of a modulation",
    run = function(ops, x, y, modulation)
      local m = ops.chunk(modulation, 6)
      return ops.gated_residual(ops.gated_residual(x, m[3], y), m[6], y)
    end,
    inputs = { { shape = { 3, 5, 9 } }, { shape = { 3, 5, 9 } }, { shape = { 3, 1, 54 } } },
    reference = function(ops, x, y, modulation)
      local m = ops.chunk(modulation, 6)
      return x + m[3] * y + m[6] * y
    end,
    gradients = { 1, 2, 3 },
    tolerance = tolerance },
  { name = "gated_residual by one gate for all (LayerScale)",
    run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
    inputs = { { shape = { 3, 33, 5 } }, { shape = { 3, 33, 5 } }, { shape = { 5 } } },
    reference = function(_, x, y, gate) return x + gate * y end,
    gradients = { 1, 2, 3 },
    tolerance = tolerance },
}
cases[#cases + 1] = {
  name = "gated_residual by one gate for many rows",
  run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
  inputs = { { shape = { 3, 72, 64 } }, { shape = { 3, 72, 64 } }, { shape = { 64 } } },
  reference = function(_, x, y, gate) return x + gate * y end,
  gradients = { 1, 2, 3 },
  tolerance = tolerance,
}
for _, shape in ipairs { { 1, 1, 1 }, { 2, 67, 3 }, { 2, 33, 257 }, { 3, 257, 72 }, { 2, 31, 1152 } } do
  cases[#cases + 1] = {
    name = "gated_residual " .. table.concat(shape, "x"),
    run = function(ops, x, y, gate) return ops.gated_residual(x, gate, y) end,
    inputs = { { shape = shape }, { shape = shape }, { shape = { shape[1], 1, shape[3] } } },
    reference = function(_, x, y, gate) return x + gate * y end,
    gradients = shape[3] < 100 and { 1, 2, 3 } or nil,
    tolerance = tolerance,
  }
end

--- The sums of dy's columns, as a call of its own makes them, with the gate's gradient and without it: in a training
--- program on a GPU they are the gradient of a linear layer's bias.
for _, shape in ipairs { { 2, 67, 3 }, { 3, 257, 72 }, { 1, 130, 264 } } do
  for _, gates in ipairs { shape[1], 1 } do
    cases[#cases + 1] = {
      name = ("gated_residual_backward with sums of columns %s, %d gates"):format(table.concat(shape, "x"), gates),
      run = function(_, dout, y, gate)
        local p, definition = core.program.new "column sums", op.defined.gated_residual_backward
        local function recorded()
          return p:record(definition, { p:operand(dout), p:operand(y), p:operand(gate) }, {},
            definition.shape { dout = dout, y = y, gate = gate })
        end
        local all, without = recorded(), recorded()
        local out = core.executable.compile(p, {
          { name = "dy", value = all[1] }, { name = "dgate", value = all[2] }, { name = "dbias", value = all[3] },
          { name = "again", value = without[3] },
        }, { device = dout.device }):run {}
        return out.dy, out.dgate, out.dbias, out.again
      end,
      inputs = { { shape = shape }, { shape = shape }, { shape = { gates, 1, shape[3] } } },
      reference = function(ops, dout, y, gate)
        local sums = ops.sum(gate * dout, { 1, 2 })
        return gate * dout, op.unbroadcast(dout * y, gate.shape), sums, sums
      end,
      strided = false, compiled = false,
      tolerance = { float32 = 2e-5, float64 = 1e-12, bfloat16 = 2e-2 },
    }
  end
end
return cases
