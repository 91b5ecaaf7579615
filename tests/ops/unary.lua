--- Functions of one element against Lua's own mathematics.
local cases = {}

local function erf(x) -- Taylor's series, or 1 - erfc by its continued fraction
  if math.abs(x) > 3 then
    local t, f = math.abs(x), 0
    for k = 60, 1, -1 do f = k / 2 / (t + f) end
    local y = 1 - math.exp(-t * t) / math.sqrt(math.pi) / (t + f)
    return x < 0 and -y or y
  end
  local term, sum = x, x
  for k = 1, 80 do
    term = -term * x * x / k
    sum = sum + term / (2 * k + 1)
  end
  return 2 / math.sqrt(math.pi) * sum
end

local function round(x) -- ties to even
  local low = math.floor(x)
  if x - low ~= 0.5 then return math.floor(x + 0.5) end
  return low % 2 == 0 and low or low + 1
end

--- The nearest number of float16, by its spacing.
local function round_to_half(x)
  if math.abs(x) >= 65520 then return x * math.huge end
  local _, exponent = math.frexp(x)
  local spacing = 2 ^ (math.max(exponent, -13) - 11)
  return round(x / spacing) * spacing
end

local functions = {
  neg = { function(x) return -x end },
  abs = { math.abs },
  exp = { math.exp, range = { -20, 20 } },
  log = { math.log, range = { 0.01, 20 } },
  sqrt = { math.sqrt, range = { 0.1, 20 } },
  rsqrt = { function(x) return 1 / math.sqrt(x) end, range = { 0.1, 20 } },
  square = { function(x) return x * x end },
  sin = { math.sin, range = { -20, 20 } },
  cos = { math.cos, range = { -20, 20 } },
  atan = { math.atan, range = { -20, 20 } },
  tanh = { math.tanh, range = { -3, 3 } },
  sigmoid = { function(x) return 1 / (1 + math.exp(-x)) end, range = { -10, 10 } },
  relu = { function(x) return math.max(x, 0) end },
  erf = { erf, range = { -4, 4 } },
  floor = { math.floor, flat = true },
  round = { round, flat = true },
  sign = { function(x) return x > 0 and 1 or x < 0 and -1 or 0 end, flat = true },
  round_to_half = { round_to_half, flat = true },
  reciprocal = { function(x) return 1 / x end, range = { 0.2, 4 } },
}
local names = {}
for name in pairs(functions) do names[#names + 1] = name end
table.sort(names)

local tolerance = { float32 = 1e-6, bfloat16 = 4e-3, float64 = 1e-13 }

for _, name in ipairs(names) do
  local f = functions[name]
  for _, shape in ipairs { { 1 }, { 31 }, { 3, 33 }, { 2, 3, 257 } } do
    cases[#cases + 1] = {
      name = ("%s %s"):format(name, table.concat(shape, "x")),
      run = function(ops, x) return ops[name](x) end,
      inputs = { { shape = shape, range = f.range } },
      elementwise = f[1],
      gradients = shape[2] == 33 and not f.flat and { 1 } or nil,
      tolerance = tolerance,
      gradient_tolerance = { float32 = 1e-5, bfloat16 = 5e-2 },
    }
  end
end

local huge, nan = math.huge, 0 / 0
for name, values in pairs {
  exp = { -huge, -200, 0, 200, huge, nan }, log = { 0, 1, huge, nan, -1 }, tanh = { -huge, -50, 0, 50, huge, nan },
  erf = { -huge, -50, 0, 50, huge, nan }, sigmoid = { -huge, -200, 0, 200, huge, nan }, relu = { -huge, 0, huge, nan },
  sqrt = { 0, huge, nan, -1 }, sign = { -huge, 0, huge },
} do
  cases[#cases + 1] = {
    name = name .. " at the ends", inputs = { { values = values } },
    run = function(ops, x) return ops[name](x) end,
    elementwise = name == "erf" and function(x) return x ~= x and x or math.max(-1, math.min(1, x)) end
      or name == "relu" and function(x) return x ~= x and x or math.max(x, 0) end or functions[name][1],
    tolerance = tolerance,
  }
end

local function case(t) cases[#cases + 1] = t end

case { -- ties, numbers too small to be normal, and too large
  name = "round_to_half at the ends", dtypes = { "float32", "float64" },
  inputs = { { values = { 0, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 2 - 2 ^ -12, -65519, 65520, -65520, 2 ^ -25, 3 * 2 ^ -25,
    2 ^ -14 - 2 ^ -25, -5.3e-6, huge, -huge, nan } } },
  run = function(ops, x) return ops.round_to_half(x) end,
  elementwise = function(x) return x ~= x and x or round_to_half(x) end,
  tolerance = { float32 = 1e-12, float64 = 1e-12 },
}

case {
  name = "affine", run = function(ops, x) return ops.affine(x, 2.5, -0.75) end, inputs = { { shape = { 7, 33 } } },
  elementwise = function(x) return 2.5 * x - 0.75 end, gradients = { 1 }, tolerance = tolerance,
}
case {
  name = "clamp", run = function(_, x) return x:clamp(-0.5, 1) end, inputs = { { shape = { 257 } } },
  elementwise = function(x) return math.max(-0.5, math.min(1, x)) end, gradients = { 1 },
  tolerance = { float32 = 0, bfloat16 = 0, float64 = 0 }, gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
}
case {
  name = "clamp from below only", run = function(_, x) return x:clamp(0) end, inputs = { { shape = { 33 } } },
  elementwise = function(x) return math.max(0, x) end,
}
for _, exponent in ipairs { 1, 2, 3, 0.5, -0.5, -1, 2.7, -1.5 } do
  case {
    name = "power " .. exponent,
    run = function(_, x) return x ^ exponent end,
    inputs = { { shape = { 33 }, range = { 0.2, 3 } } }, elementwise = function(x) return x ^ exponent end,
    gradients = { 1 }, tolerance = tolerance, gradient_tolerance = { float32 = 1e-5, bfloat16 = 3e-2 },
  }
end
for _, dtype in ipairs { "int32", "int64", "uint8" } do
  local from = dtype == "uint8" and 0 or -9
  local input = { shape = { 5, 33 }, int = { from, 9 }, dtype = dtype }
  case {
    name = "affine of " .. dtype, inputs = { input }, dtypes = { "float32" },
    run = function(_, x) return x * 3 + 28 end,
    elementwise = function(x) return 3 * x + 28 end,
  }
  case {
    name = "clamp of " .. dtype, run = function(_, x) return x:clamp(2.5, 7.5) end, inputs = { input },
    dtypes = { "float32" }, elementwise = function(x) return math.max(3, math.min(7, x)) end,
  }
  case {
    name = "exp of " .. dtype, run = function(_, x) return x:exp() end, inputs = { input }, dtypes = { "float32" },
    elementwise = math.exp,
  }
end
for _, name in ipairs { "neg", "abs", "square", "sign" } do
  case {
    name = name .. " of int64", run = function(ops, x) return ops[name](x) end, dtypes = { "float32" },
    inputs = { { shape = { 257 }, int = { -99, 99 }, dtype = "int64" } }, elementwise = functions[name][1],
  }
end
case {
  name = "a large tensor", run = function(ops, x) return ops.exp(x) end, inputs = { { shape = { 70, 1001 } } },
  elementwise = math.exp, dtypes = { "float32" },
}
case {
  name = "exp of a number", run = function(ops) return ops.exp(1) end, error = "exp: expected a tensor, got a number",
}

return cases
