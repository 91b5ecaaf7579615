local op = require "perigee.core.op"

local activations = require "perigee.core.activations"

local tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 3e-2 }

local function plain(x, weight, bias, groups, activation)
  return op.defined.group_norm.plain { x = x, weight = weight, bias = bias, groups = groups, epsilon = 1e-5,
    activation = activation and activations.number[activation] or 0 }
end

local cases = {
  { name = "group_norm of one element is 0, not NaN",
    run = function(ops, x) return ops.group_norm(x, { groups = 1 }) end,
    inputs = { { shape = { 1, 1 } } },
    reference = function(_, x) return x * 0 end,
    tolerance = tolerance },
  { name = "group_norm with a large mean, the channels' means apart",
    run = function(ops, x, shift) return ops.group_norm(x * 0.5 + shift * 10 + 100, { groups = 2 }) end,
    inputs = { { shape = { 2, 6, 700 } }, { shape = { 6, 1 } } },
    reference = function(_, x, shift) return plain(x * 0.5 + shift * 10 + 100, nil, nil, 2) end,
    tolerance = { float32 = 1e-4, float64 = 1e-12, bfloat16 = 1 } },
  { name = "group_norm with a bias alone",
    run = function(ops, x, bias) return ops.group_norm(x, { bias = bias, groups = 3, activation = "silu" }) end,
    inputs = { { shape = { 2, 6, 5 } }, { shape = { 6 } } },
    reference = function(_, x, bias) return plain(x, nil, bias, 3, "silu") end,
    gradients = { 1, 2 },
    tolerance = tolerance },
  { name = "group_norm with groups that do not divide the channels",
    run = function(ops, x) return ops.group_norm(x, { groups = 4 }) end,
    inputs = { { shape = { 2, 6, 5 } } },
    error = "its 6 channels do not divide into 4 groups" },
  { name = "group_norm with a weight of another length",
    run = function(ops, x, weight) return ops.group_norm(x, { groups = 2, weight = weight }) end,
    inputs = { { shape = { 2, 6, 5 } }, { shape = { 5 } } },
    error = "x is [2,6,5], weight is [5]; expected [6]" },
  { name = "group_norm with an unknown activation",
    run = function(ops, x) return ops.group_norm(x, { groups = 2, activation = "relu6" }) end,
    inputs = { { shape = { 2, 6, 5 } } },
    error = "unknown activation 'relu6'" },
}

local shapes = { { { 2, 4, 3, 5 }, 2 }, { { 1, 64, 33 }, 32 }, { { 3, 6, 31, 33 }, 2 }, { { 2, 5, 8, 32 }, 5 },
  { { 1, 2, 70, 128 }, 1 }, { { 2, 34, 4 }, 1 } }
for _, case in ipairs(shapes) do
  local shape, groups = unpack(case)
  for _, activation in ipairs { "none", "silu", "gelu_erf" } do
    local f = activation ~= "none" and activation or nil
    if activation ~= "gelu_erf" or op.numel(shape) < 500 then
      cases[#cases + 1] = {
        name = ("group_norm %s in %d groups, %s"):format(table.concat(shape, "x"), groups, activation),
        run = function(ops, x, weight, bias)
          return ops.group_norm(x, { groups = groups, weight = weight, bias = bias, activation = f })
        end,
        inputs = { { shape = shape }, { shape = { shape[2] } }, { shape = { shape[2] } } },
        reference = function(_, x, weight, bias) return plain(x, weight, bias, groups, f) end,
        gradients = op.numel(shape) < 500 and { 1, 2, 3 } or nil,
        tolerance = tolerance }
    end
  end
end

return cases
