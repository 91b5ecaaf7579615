local op = require "perigee.core.op"

local tolerance = { float32 = 1e-6, float64 = 1e-13, bfloat16 = 2e-2 }
local cases = {}
for _, shape in ipairs { { 1, 1 }, { 3, 31 }, { 2, 4, 33, 33 }, { 3, 257 }, { 3, 4, 32, 72 } } do
  for code, path in pairs { [0] = "linear", [1] = "cosine" } do
    for result, name in ipairs { "x_t", "velocity" } do
      cases[#cases + 1] = {
        name = ("interpolant %s, %s, %s"):format(table.concat(shape, "x"), path, name),
        run = function(ops, x0, noise, t)
          return (select(result, ops.interpolant(x0, noise, t:to(op.stat(x0.dtype)), { path = path })))
        end,
        inputs = { { shape = shape }, { shape = shape }, { shape = { shape[1] }, range = { 0, 1 } } },
        reference = function(_, x0, noise, t)
          return (select(result, op.defined.interpolant.plain { x0 = x0, noise = noise, t = t, path = code }))
        end,
        tolerance = tolerance,
      }
    end
  end
end
return cases
