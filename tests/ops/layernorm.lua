local op = require "perigee.core.op"

local tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 3e-2 }

local function plain(_, x, weight, bias)
  return op.defined.layernorm.plain { x = x, weight = weight, bias = bias, epsilon = 1e-6 }
end

local function modulated_plain(_, x, shift, scale)
  return op.defined.layernorm_modulate.plain { x = x, shift = shift, scale = scale, epsilon = 1e-6 }
end

local cases = {
  { name = "layernorm of one row of one element is 0, not NaN",
    run = function(ops, x) return ops.layernorm(x) end,
    inputs = { { shape = { 1 } } },
    reference = function(_, x) return x * 0 end,
    tolerance = tolerance },
  { name = "layernorm of equal elements is 0",
    run = function(ops, x) return ops.layernorm(x * 0 + 3) end,
    inputs = { { shape = { 2, 31 } } },
    reference = function(_, x) return x * 0 end,
    tolerance = tolerance },
  { name = "layernorm with a large mean",
    run = function(ops, x) return ops.layernorm(x * 0.5 + 100) end,
    inputs = { { shape = { 5, 384 } } },
    reference = function(ops, x) return plain(ops, x * 0.5 + 100) end,
    tolerance = { float32 = 1e-3, float64 = 1e-12, bfloat16 = 1 } },
  { name = "layernorm with a bias alone",
    run = function(ops, x, bias) return ops.layernorm(x, { bias = bias }) end,
    inputs = { { shape = { 3, 33 } }, { shape = { 33 } } },
    reference = function(ops, x, bias) return plain(ops, x, nil, bias) end,
    gradients = { 1, 2 },
    tolerance = tolerance },
  { name = "layernorm_modulate by slices of a modulation",
    run = function(ops, x, modulation)
      local m = ops.chunk(modulation, 6)
      return ops.layernorm_modulate(x, m[4], m[2])
    end,
    inputs = { { shape = { 3, 7, 20 } }, { shape = { 3, 1, 120 } } },
    reference = function(ops, x, modulation)
      local m = ops.chunk(modulation, 6)
      return modulated_plain(ops, x, m[4], m[2])
    end,
    gradients = { 1, 2 },
    tolerance = tolerance },
  { name = "layernorm inside a residual connection",
    run = function(ops, x, shift, scale)
      local y = x * 1.5
      return y + ops.layernorm_modulate(y, shift, scale)
    end,
    inputs = { { shape = { 2, 5, 18 } }, { shape = { 2, 1, 18 } }, { shape = { 2, 1, 18 } } },
    reference = function(ops, x, shift, scale) return x * 1.5 + modulated_plain(ops, x * 1.5, shift, scale) end,
    gradients = { 1, 2, 3 },
    tolerance = tolerance },
}

for _, shape in ipairs { { 1, 1, 31 }, { 2, 33, 257 }, { 3, 257, 72 }, { 2, 70, 1152 }, { 2, 64, 384 } } do
  local width = shape[3]
  local small = shape[1] * shape[2] * width < 50
  local size = table.concat(shape, "x")
  cases[#cases + 1] = {
    name = "layernorm " .. size,
    run = function(ops, x) return ops.layernorm(x, { epsilon = 1e-6 }) end,
    inputs = { { shape = shape } },
    reference = plain,
    gradients = small and { 1 } or nil,
    tolerance = tolerance,
  }
  cases[#cases + 1] = {
    name = "layernorm with weight and bias " .. size,
    run = function(ops, x, weight, bias) return ops.layernorm(x, { weight = weight, bias = bias }) end,
    inputs = { { shape = shape }, { shape = { width } }, { shape = { width } } },
    reference = plain,
    gradients = small and { 1, 2, 3 } or nil,
    tolerance = tolerance,
  }
  cases[#cases + 1] = {
    name = "layernorm_modulate " .. size,
    run = function(ops, x, shift, scale) return ops.layernorm_modulate(x, shift, scale) end,
    inputs = { { shape = shape }, { shape = { shape[1], 1, width } }, { shape = { shape[1], 1, width } } },
    reference = modulated_plain,
    gradients = small and { 1, 2, 3 } or nil,
    tolerance = tolerance,
  }
end

-- Widths around warps and vectors, with all gradients. A row of one has no gradient but rounding.
for _, width in ipairs { 1, 31, 32, 33, 72, 257, 384 } do
  local gradient_tolerance = { float32 = 2e-5, bfloat16 = 6e-2 }
  cases[#cases + 1] = {
    name = ("layernorm and its gradients, %d wide"):format(width),
    run = function(ops, x, weight, bias) return ops.layernorm(x, { weight = weight, bias = bias }) end,
    inputs = { { shape = { 9, width } }, { shape = { width } }, { shape = { width } } },
    reference = plain, gradients = width == 1 and { 3 } or { 1, 2, 3 }, tolerance = tolerance,
    gradient_tolerance = gradient_tolerance,
  }
  cases[#cases + 1] = {
    name = ("layernorm and its gradient without weight and bias, %d wide"):format(width),
    run = function(ops, x) return ops.layernorm(x) end, inputs = { { shape = { 9, width } } },
    reference = plain, gradients = width > 1 and { 1 } or nil, tolerance = tolerance,
    gradient_tolerance = gradient_tolerance,
  }
  cases[#cases + 1] = {
    name = ("layernorm_modulate inside a residual connection, %d wide"):format(width),
    run = function(ops, x, shift, scale)
      local y = x * 1.5
      return y + ops.layernorm_modulate(y, shift, scale)
    end,
    inputs = { { shape = { 2, 5, width } }, { shape = { 2, 1, width } }, { shape = { 2, 1, width } } },
    reference = function(ops, x, shift, scale) return x * 1.5 + modulated_plain(ops, x * 1.5, shift, scale) end,
    gradients = width == 1 and { 2 } or { 1, 2, 3 }, tolerance = tolerance, gradient_tolerance = gradient_tolerance,
  }
end

-- Sums over more than one chunk of rows, small enough for finite differences.
for _, width in ipairs { 3, 33, 72 } do
  cases[#cases + 1] = {
    name = ("layernorm gradients over chunks, %d wide"):format(width),
    run = function(ops, x, weight, bias) return ops.layernorm(x, { weight = weight, bias = bias }) end,
    inputs = { { shape = { 131, width } }, { shape = { width } }, { shape = { width } } },
    reference = plain,
    gradients = { 1, 2, 3 },
    tolerance = tolerance,
  }
  cases[#cases + 1] = {
    name = ("layernorm_modulate gradients over chunks, %d wide"):format(width),
    run = function(ops, x, shift, scale) return ops.layernorm_modulate(x, shift, scale) end,
    inputs = { { shape = { 2, 67, width } }, { shape = { 2, 1, width } }, { shape = { 2, 1, width } } },
    reference = modulated_plain,
    gradients = { 1, 2, 3 },
    tolerance = tolerance,
  }
end
return cases
