local activations = require "perigee.core.activations"
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local op = require "perigee.core.op"
local safetensors = require "perigee.io.safetensors"

local tolerance = { float32 = 2e-6, float64 = 1e-12, bfloat16 = 1e-2 }
local cases = {}

local KIND = activations.number
local run = {
  gelu_tanh = function(ops, x) return ops.gelu(x, { approximate = "tanh" }) end,
  gelu_erf = function(_, x) return x:gelu() end,
  silu = function(_, x) return x:silu() end,
  quick_gelu = function(ops, x) return ops.quick_gelu(x) end,
}

for name, body in pairs(run) do
  for _, shape in ipairs { { 1 }, { 33, 257 }, { 2, 3, 4 } } do
    cases[#cases + 1] = {
      name = name .. " " .. table.concat(shape, "x"),
      run = body,
      inputs = { { shape = shape } },
      reference = function(_, x) return op.defined.activation.plain { x = x, kind = KIND[name] } end,
      gradients = #shape ~= 2 and { 1 } or nil,
      tolerance = tolerance,
    }
  end
  cases[#cases + 1] = {
    name = name .. " far from zero",
    run = body,
    inputs = { { values = { -1e30, -300, -12, -5.5, 0, 1e-20, 5.5, 12, 300, 1e30 } } },
    reference = function(_, x) return op.defined.activation.plain { x = x, kind = KIND[name] } end,
    dtypes = { "float64" },
  }
  cases[#cases + 1] = {
    name = name .. " with its tails",
    run = body,
    inputs = { { values = { -40, -12, -5.5, -3, -1e-3, 0, 1e-20, 0.7, 5.5, 12, 40 } } },
    reference = function(_, x) return op.defined.activation.plain { x = x, kind = KIND[name] } end,
    gradients = { 1 },
    dtypes = { "float64" },
  }
end

-- Values and derivatives at 1.5 and -0.75 in float64, of PyTorch 2.13; quick_gelu's by its formula.
local known = {
  gelu_tanh = { 1.39957157698023, -0.17003944483438, 1.12771079315143, 0.00106174386258562 },
  gelu_erf = { 1.39978919809671, -0.169970514282651, 1.12746919222998, 0.000774278260764816 },
  silu = { 1.22636171429047, -0.240615975618455, 1.04129415429914, 0.157400055503247 },
  quick_gelu = { 1.39166219844708, -0.163609942465362, 1.0988480646241, 0.000428466533142546 },
}
for name, values in pairs(known) do
  cases[#cases + 1] = {
    name = name .. " against known values",
    run = function(ops, x)
      return ops.concat({ run[name](ops, x), ops.activation_backward(x * 0 + 1, x, KIND[name]) }, 1)
    end,
    inputs = { { values = { 1.5, -0.75 } } },
    reference = function() return values end,
    tolerance = { float32 = 1e-6, float64 = 1e-12, bfloat16 = 1e-2 },
  }
end

cases[#cases + 1] = {
  name = "activations against PyTorch",
  check = function()
    local fixture = safetensors.load(door.home .. "/tests/oracle/fixtures/basics.safetensors")
    for key, name in pairs { gelu = "gelu_erf", gelu_tanh = "gelu_tanh", silu = "silu" } do
      for _, size in ipairs { "1", "31", "33", "257", "edges" } do
        local prefix = key .. "." .. size .. "."
        local x, upstream = fixture[prefix .. "x"], fixture[prefix .. "upstream"]
        local function weighted(value) return core.ops.sum(run[name](core.ops, value) * upstream) end
        local gradient = core.grad(weighted, { x })[1]
        for what, pair in pairs { out = { run[name](core.ops, x), "out" }, gradient = { gradient, "grad_x" } } do
          local expected = fixture[prefix .. pair[2]]
          local bound = 1e-6 * math.max(1, expected:abs():max():item())
          local off = (pair[1] - expected):abs():max():item()
          assert(off <= bound, ("%s%s is off by %.3g, allowed %.3g"):format(prefix, what, off, bound))
        end
      end
    end
  end,
}
cases[#cases + 1] = {
  name = "gelu by an unknown approximation",
  run = function(ops, x) return ops.gelu(x, { approximate = "sigmoid" }) end,
  inputs = { { shape = { 2 } } },
  error = "gelu: approximate = 'sigmoid'; it may be 'none' or 'tanh'",
}
cases[#cases + 1] = {
  name = "every activation is tried here, and has a name for editors",
  check = function()
    local file = assert(io.open(door.home .. "/lua/perigee/core/ops/activation.lua"))
    local alias = file:read("*a"):match "%-%-%-@alias perigee%.Activation ([^\n]*)"
    file:close()
    assert.equal('"' .. table.concat(activations.names, '"|"') .. '"', alias)
    for _, name in ipairs(activations.names) do assert(run[name] and known[name], name .. " has no test") end
  end,
}
return cases
