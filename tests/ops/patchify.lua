local op = require "perigee.core.op"

local exact = { float32 = 1e-7, float64 = 0, bfloat16 = 4e-3 } -- values move; the gradients' coefficients are rounded
local cases = {}
for _, case in ipairs {
  { shape = { 1, 1, 1, 1 }, patch = 1 }, { shape = { 2, 3, 4, 6 }, patch = 2 }, { shape = { 2, 4, 32, 32 }, patch = 2 },
  { shape = { 2, 3, 33, 11 }, patch = 11 }, { shape = { 1, 5, 8, 4 }, patch = 4 },
} do
  for code, order in pairs { [0] = "channels_first", [1] = "channels_last" } do
    local shape, patch = case.shape, case.patch
    local rows, columns = shape[3] / patch, shape[4] / patch
    local tokens = { shape[1], rows * columns, shape[2] * patch * patch }
    local name = ("%s, patch %d, %s"):format(table.concat(shape, "x"), patch, order)
    local gradients = op.numel(shape) < 1000 and { 1 } or nil
    cases[#cases + 1] = {
      name = "patchify " .. name,
      run = function(ops, x) return ops.patchify(x, { patch = patch, order = order }) end,
      inputs = { { shape = shape } },
      reference = function(_, x) return op.defined.patchify.plain { images = x, patch = patch, order = code } end,
      gradients = gradients,
      tolerance = exact,
    }
    cases[#cases + 1] = {
      name = "unpatchify " .. name,
      run = function(ops, x)
        return ops.unpatchify(x, { patch = patch, order = order, size = { shape[3], shape[4] }, channels = shape[2] })
      end,
      inputs = { { shape = tokens } },
      reference = function(_, x)
        return op.defined.unpatchify.plain { tokens = x, patch = patch, order = code, rows = rows, columns = columns }
      end,
      gradients = gradients,
      tolerance = exact,
    }
  end
end
return cases
