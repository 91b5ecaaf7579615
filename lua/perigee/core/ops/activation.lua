--- GELU (exact and tanh approximation) and SiLU. The kinds' numbers are those of kernels/activation/functions.h.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local KIND = { gelu_tanh = 1, gelu_erf = 2, silu = 3 }

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

local plain = {
  function(x) return (ops.tanh((x + ops.power(x, 3) * 0.044715) * math.sqrt(2 / math.pi)) + 1) * x * 0.5 end,
  function(x) return (ops.erf(x * math.sqrt(0.5)) + 1) * x * 0.5 end,
  function(x) return x * ops.sigmoid(x) end,
}

local activation = op.define {
  name = "activation",
  inputs = { "x" },
  ints = { "kind" },
  inplace = { y = "x" },
  recompute = true,
  shape = function(a) return { { a.x.shape, a.x.dtype } } end,
  vjp = function(n, dy) return { x = backward(dy, n.x, { kind = n.kind }) } end,
  plain = function(a) return plain[a.kind](a.x) end,
  flops = function(a) return 10 * op.numel(a.x.shape) end,
}

--- x·Φ(x); with approximate = "tanh" the tanh approximation.
---@param options? { approximate?: "none"|"tanh" }
local function gelu(x, options)
  local o = op.options("gelu", options, { approximate = "none" })
  if o.approximate ~= "none" and o.approximate ~= "tanh" then
    op.fail("gelu: approximate = '%s'; it may be 'none' or 'tanh'", tostring(o.approximate))
  end
  return activation(x, { kind = o.approximate == "tanh" and KIND.gelu_tanh or KIND.gelu_erf })
end

--- x·σ(x).
local function silu(x) return activation(x, { kind = KIND.silu }) end

return {
  gelu = gelu, silu = silu,
  --- "gelu_tanh", "gelu_erf" or "silu" by name.
  activation = function(x, name)
    if not KIND[name] then op.fail("activation '%s'; there are gelu_tanh, gelu_erf and silu", tostring(name)) end
    return activation(x, { kind = KIND[name] })
  end,
  --- dy·f'(x) for the activation of that number.
  activation_backward = function(dy, x, kind) return backward(dy, x, { kind = kind }) end,
  methods = { gelu = gelu, silu = silu },
}
