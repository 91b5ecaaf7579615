--- Layer normalisation, plain (with optional weight and bias) and modulated by a shift and scale per image (adaLN).
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local function last(x) return x.shape[#x.shape] end

--- The shape of what is kept for each row.
local function rows_of(x)
  local shape = {}
  for d = 1, #x.shape - 1 do shape[d] = x.shape[d] end
  return shape
end

--- The outputs of both for x: y, and each row's mean and 1/deviation.
local function results(x)
  local row, stat = rows_of(x), op.stat(x.dtype)
  return { { x.shape, x.dtype }, { row, stat }, { row, stat } }
end

--- dx + other, where nobody else reads dx, becomes part of the backward kernel: the gradient that flows around the
--- normalisation through the residual connection is added while dx is in a register.
local function take_in_residual(graph, node)
  local dx = node.outputs[1]
  local adder = graph:only_reader(dx)
  if node.dresidual or not adder or adder.definition.name ~= "add" then return end
  local other = rawequal(adder.inputs[1], dx) and adder.inputs[2] or adder.inputs[1]
  local sum = adder.outputs[1]
  if rawequal(other, dx) or not op.same_shape(other.shape, dx.shape) then return end
  if other.dtype ~= dx.dtype or not other:is_contiguous() or graph:depends_on({ other }, node) then return end
  local inputs = {}
  for k = 1, #node.definition.inputs do inputs[k] = node.inputs[k] end
  inputs[#inputs] = other
  graph:rewrite(adder, node.definition, inputs, node.attributes,
    { [sum] = 1, [node.outputs[2]] = 2, [node.outputs[3]] = 3 }, { node, adder })
end

-- ---- plain ------------------------------------------------------------------------------------------------------

local layernorm_backward = op.define {
  name = "layernorm_backward",
  inputs = { "dy", "x", "mean", "rstd", "weight?", "dresidual?" },
  outputs = { "dx", "dweight", "dbias" },
  results = 3,
  optional_outputs = { dweight = true, dbias = true },
  inplace = { dx = "dy" },
  shape = function(a)
    op.expect_one_dtype("layernorm_backward", a, { "x", "dy", "weight", "dresidual" })
    return { { a.x.shape, a.x.dtype }, { { last(a.x) }, a.x.dtype }, { { last(a.x) }, a.x.dtype } }
  end,
  flops = function(a) return 14 * op.numel(a.x.shape) end,
  fusions = { take_in_residual },
}

local layernorm = op.define {
  name = "layernorm",
  inputs = { "x", "weight?", "bias?" },
  outputs = { "y", "mean", "rstd" },
  floats = { "epsilon" },
  inplace = { y = "x" },
  recompute = true,
  shape = function(a)
    op.expect_one_dtype("layernorm", a, { "x", "weight", "bias" })
    if #a.x.shape == 0 then fail "layernorm: x has no dimensions" end
    for _, name in ipairs { "weight", "bias" } do
      if a[name] and not op.same_shape(a[name].shape, { last(a.x) }) then
        fail("layernorm: x is %s, %s is %s; it must be [%d]", text(a.x.shape), name, text(a[name].shape), last(a.x))
      end
    end
    return results(a.x)
  end,
  vjp = function(n, dy)
    local dx, dweight, dbias = layernorm_backward(dy, n.x, n.mean, n.rstd, n.weight, nil)
    return { x = dx, weight = n.weight and dweight, bias = n.bias and dbias }
  end,
  plain = function(a)
    local centred = a.x - ops.mean(a.x, -1, { keep = true })
    local y = centred / ops.sqrt(ops.mean(centred * centred, -1, { keep = true }) + a.epsilon)
    if a.weight then y = y * a.weight end
    if a.bias then y = y + a.bias end
    return y
  end,
  flops = function(a) return 8 * op.numel(a.x.shape) end,
}

-- ---- modulated --------------------------------------------------------------------------------------------------

local modulate_backward = op.define {
  name = "layernorm_modulate_backward",
  inputs = { "dy", "x", "mean", "rstd", "scale", "dresidual?" },
  outputs = { "dx", "dshift", "dscale" },
  results = 3,
  strided = { scale = true },
  optional_outputs = { dshift = true, dscale = true },
  inplace = { dx = "dy" },
  shape = function(a)
    op.expect_one_dtype("layernorm_modulate_backward", a, { "x", "dy", "scale", "dresidual" })
    return { { a.x.shape, a.x.dtype }, { a.scale.shape, a.x.dtype }, { a.scale.shape, a.x.dtype } }
  end,
  flops = function(a) return 16 * op.numel(a.x.shape) end,
  fusions = { take_in_residual },
}

local modulate = op.define {
  name = "layernorm_modulate",
  inputs = { "x", "shift", "scale" },
  outputs = { "y", "mean", "rstd" },
  floats = { "epsilon" },
  strided = { shift = true, scale = true },
  inplace = { y = "x" },
  recompute = true,
  shape = function(a)
    op.expect_one_dtype("layernorm_modulate", a, { "x", "shift", "scale" })
    local x = a.x.shape
    for _, name in ipairs { "shift", "scale" } do
      if #x ~= 3 or not op.same_shape(a[name].shape, { x[1], 1, x[3] }) then
        fail("layernorm_modulate: x is %s, %s is %s; expected [B,N,D] and [B,1,D]", text(x), name, text(a[name].shape))
      end
    end
    return results(a.x)
  end,
  vjp = function(n, dy)
    local dx, dshift, dscale = modulate_backward(dy, n.x, n.mean, n.rstd, n.scale, nil)
    return { x = dx, shift = dshift, scale = dscale }
  end,
  plain = function(a) return ops.layernorm(a.x, { epsilon = a.epsilon }) * (a.scale + 1) + a.shift end,
  flops = function(a) return 9 * op.numel(a.x.shape) end,
}

return {
  --- Normalises over the last dimension. Options: weight, bias [D], epsilon (1e-6).
  layernorm = function(x, options)
    local o = op.options("layernorm", options, { weight = false, bias = false, epsilon = 1e-6 })
    return layernorm(x, o.weight, o.bias, { epsilon = o.epsilon })
  end,

  --- Normalises x [B,N,D] over D, then y·(1 + scale) + shift with shift, scale [B,1,D]. Options: epsilon (1e-6).
  layernorm_modulate = function(x, shift, scale, options)
    local o = op.options("layernorm_modulate", options, { epsilon = 1e-6 })
    return modulate(x, op.rows_in_one_piece(shift), op.rows_in_one_piece(scale), { epsilon = o.epsilon })
  end,
}
