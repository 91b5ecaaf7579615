--- Activation functions, element by element. A new one is a line in kernels/activation/kinds.h, the function and its
--- derivative in functions.h there, its plain form and a name for editors here.
local activations = require "perigee.core.activations"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

---@alias perigee.Activation "gelu_tanh"|"gelu_erf"|"silu"|"quick_gelu"

local backward = op.define {
  name = "activation_backward",
  inputs = { "dy", "x" },
  outputs = { "dx" },
  ints = { "kind" },
  inplace = { dx = "dy" },
  shape = function(a)
    op.expect_one_dtype("activation_backward", a, { "x", "dy" })
    return { { a.x.shape, a.x.dtype } }
  end,
  flops = function(a) return 14 * op.numel(a.x.shape) end,
}

local plain = {}
function plain.gelu_tanh(x)
  return (ops.tanh((x + ops.power(x, 3) * 0.044715) * math.sqrt(2 / math.pi)) + 1) * x * 0.5
end
function plain.gelu_erf(x) return (ops.erf(x * math.sqrt(0.5)) + 1) * x * 0.5 end
function plain.silu(x) return x * ops.sigmoid(x) end
function plain.quick_gelu(x) return x * ops.sigmoid(x * 1.702) end

local activation = op.define {
  name = "activation",
  inputs = { "x" },
  ints = { "kind" },
  inplace = { y = "x" },
  recompute = true,
  shape = function(a) return { { a.x.shape, a.x.dtype } } end,
  vjp = function(n, dy) return { x = backward(dy, n.x, { kind = n.kind }) } end,
  plain = function(a) return plain[activations.name[a.kind]](a.x) end,
  flops = function(a) return 10 * op.numel(a.x.shape) end,
}

local exported = { methods = {} }
for name, kind in pairs(activations.number) do
  exported[name] = function(x) return activation(x, { kind = kind }) end
end

--- x·Φ(x); with approximate = "tanh" the tanh approximation.
---@param options? { approximate?: "none"|"tanh" }
function exported.gelu(x, options)
  local o = op.options("gelu", options, { approximate = "none" })
  if o.approximate ~= "none" and o.approximate ~= "tanh" then
    op.fail("gelu: approximate = '%s'; it may be 'none' or 'tanh'", tostring(o.approximate))
  end
  return o.approximate == "tanh" and exported.gelu_tanh(x) or exported.gelu_erf(x)
end

--- An activation function by name.
---@param name perigee.Activation
function exported.activation(x, name)
  if not activations.number[name] then
    op.fail("unknown activation '%s'; expected %s", tostring(name), activations.text)
  end
  return exported[name](x)
end

--- dy·f'(x) for the activation of that number.
function exported.activation_backward(dy, x, kind) return backward(dy, x, { kind = kind }) end

exported.methods.gelu, exported.methods.silu = exported.gelu, exported.silu
return exported
