--- Functions of two elements against Lua's arithmetic, with broadcasting.
local cases = {}
local function case(t) cases[#cases + 1] = t end

local functions = {
  add = function(a, b) return a + b end,
  sub = function(a, b) return a - b end,
  mul = function(a, b) return a * b end,
  div = function(a, b) return a / b end,
  pow = function(a, b) return a ^ b end,
  maximum = math.max,
  minimum = math.min,
  equal = function(a, b) return a == b end,
  not_equal = function(a, b) return a ~= b end,
  less = function(a, b) return a < b end,
  less_equal = function(a, b) return a <= b end,
  greater = function(a, b) return a > b end,
  greater_equal = function(a, b) return a >= b end,
}
local names = {}
for name in pairs(functions) do names[#names + 1] = name end
table.sort(names)

local differentiable = { add = true, sub = true, mul = true, div = true, pow = true, maximum = true, minimum = true }
local tolerance = { float32 = 1e-6, bfloat16 = 4e-3, float64 = 1e-13 }
local gradient_tolerance = { float32 = 1e-5, bfloat16 = 3e-2 }

local shapes = { -- add and mul take every path, the others three of them
  { "one element", { 1 }, { 1 } }, { "33", { 33 }, { 33 } }, { "same shape", { 5, 257 }, { 5, 257 } },
  { "rows", { 3, 31, 33 }, { 33 } }, { "tokens", { 3, 32, 31 }, { 3, 1, 31 } }, { "columns", { 9, 31 }, { 9, 1 } },
  { "scalar", { 4, 33 }, {} }, { "scalar first", {}, { 257 } }, { "outer", { 31, 1 }, { 1, 33 } },
  { "leading", { 2, 1, 5 }, { 4, 1, 3, 1 } }, { "tokens of 72", { 3, 32, 72 }, { 3, 1, 72 } },
  { "columns of 64", { 9, 64 }, { 9, 1 } },
}

for _, name in ipairs(names) do
  local inexact = name == "div" or name == "pow"
  for k, shape in ipairs(shapes) do
    local every = name == "add" or name == "mul"
    if not every and k ~= 3 and k ~= 5 and k ~= 7 then goto continue end
    local integers = not differentiable[name] and { -2, 2 } or nil -- so that some are equal
    case {
      name = ("%s, %s"):format(name, shape[1]),
      run = function(ops, a, b) return ops[name](a, b) end,
      inputs = {
        { shape = shape[2], range = inexact and { 0.3, 3 } or nil, int = integers },
        { shape = shape[3], range = inexact and { 0.3, 3 } or nil, int = integers },
      },
      elementwise = functions[name],
      gradients = differentiable[name] and #shape[2] < 3 and { 1, 2 } or nil,
      tolerance = tolerance, gradient_tolerance = gradient_tolerance,
    }
    ::continue::
  end
  if not inexact then
    for _, dtype in ipairs { "int32", "int64", "uint8" } do
      local low = dtype == "uint8" and name ~= "sub" and 0 or dtype == "uint8" and 8 or -9
      case {
        name = name .. " of " .. dtype, run = function(ops, a, b) return ops[name](a, b) end,
        inputs = {
          { shape = { 31, 33 }, int = { low, 9 }, dtype = dtype },
          { shape = { 33 }, int = { math.min(low, 0), dtype == "uint8" and 7 or 9 }, dtype = dtype },
        },
        elementwise = functions[name], dtypes = { "float32" },
      }
    end
  end
end

-- a number on either side
for _, c in ipairs { 2, -1.5, 0.25 } do
  for _, name in ipairs(names) do
    if name ~= "pow" or c > 0 then
      local input = { shape = { 3, 33 }, range = { 0.3, 3 } }
      case {
        name = ("%s by %g"):format(name, c), run = function(ops, x) return ops[name](x, c) end, inputs = { input },
        elementwise = function(x) return functions[name](x, c) end, gradients = differentiable[name] and { 1 } or nil,
        tolerance = tolerance, gradient_tolerance = gradient_tolerance,
      }
      case {
        name = ("%s of %g"):format(name, c), run = function(ops, x) return ops[name](c, x) end, inputs = { input },
        elementwise = function(x) return functions[name](c, x) end, gradients = differentiable[name] and { 1 } or nil,
        tolerance = { float32 = 1e-6, bfloat16 = 8e-3, float64 = 1e-13 }, gradient_tolerance = gradient_tolerance,
      }
    end
  end
end

case {
  name = "operators", run = function(_, a, b) return (a + b) * 2 - a / b, -a ^ 2, 1 - b, 3 / b end,
  inputs = { { shape = { 5, 9 }, range = { 1, 2 } }, { shape = { 9 }, range = { 1, 2 } } },
  reference = function(ops, a, b)
    local two = ops.fill({}, { value = 2, dtype = "float64" })
    return ops.sub(ops.mul(ops.add(a, b), two), ops.div(a, b)), ops.mul(ops.square(a), -1), ops.sub(1, b), ops.div(3, b)
  end,
  gradients = { 1, 2 }, tolerance = { float32 = 1e-6, bfloat16 = 1e-2, float64 = 1e-13 },
  gradient_tolerance = { float32 = 1e-5, bfloat16 = 3e-2 },
}

local function logical(name, body)
  case {
    name = name, run = function(ops, a, b) return ops[name](a, b) end, dtypes = { "float32" }, elementwise = body,
    inputs = {
      { shape = { 4, 33 }, int = { 0, 2 }, dtype = "uint8" }, { shape = { 33 }, int = { 0, 2 }, dtype = "uint8" },
    },
  }
end
logical("logical_and", function(a, b) return a ~= 0 and b ~= 0 end)
logical("logical_or", function(a, b) return a ~= 0 or b ~= 0 end)
case {
  name = "logical_not", run = function(_, a) return a:logical_not() end, dtypes = { "float32" },
  inputs = { { shape = { 33 }, int = { 0, 2 }, dtype = "uint8" } }, elementwise = function(a) return a == 0 end,
}

local nan, huge = 0 / 0, math.huge
local function spread_nan(pick) return function(a, b) return a ~= a and a or b ~= b and b or pick(a, b) end end
for name, pick in pairs { maximum = math.max, minimum = math.min } do
  case {
    name = name .. " with NaN", run = function(ops, a, b) return ops[name](a, b) end, elementwise = spread_nan(pick),
    inputs = { { values = { nan, 1, nan, huge, -huge } }, { values = { 1, nan, nan, 0, huge } } },
  }
end

-- the quotient rounded down; dyadic numbers, so that Lua's own arithmetic is exact
local rounded = {
  remainder = function(a, b) return a - math.floor(a / b) * b end,
  floor_divide = function(a, b) return math.floor(a / b) end,
}
local function random_with(divisors) -- dividends [4,33] and divisors [33] that are not 0
  local list = {}
  for k = 1, 33 do list[k] = divisors[k % #divisors + 1] end
  return { shape = { 4, 33 }, int = { 0, 120 } }, { values = list }
end
for name, body in pairs(rounded) do
  local a, b = random_with { 1, 2, -3, 7, -8, 0.5, -0.25, 1.5 }
  case {
    name = name, run = function(ops, x, y) return ops[name](x - 60, y), ops[name](x, 7), ops[name](60, y) end,
    inputs = { a, b }, tolerance = 0,
    reference = function(ops, x, y)
      local function each(u, v)
        local rows = {}
        for r, row in ipairs(u) do
          rows[r] = {}
          for k, value in ipairs(row) do rows[r][k] = body(value, type(v) == "table" and v[k] or v) end
        end
        return rows
      end
      return each((x - 60):totable(), y:totable()), each(x:totable(), 7),
        each({ ops.fill({ 33 }, { value = 60, dtype = "float64" }):totable() }, y:totable())[1]
    end,
  }
  for _, dtype in ipairs { "int32", "int64", "uint8" } do
    local low = dtype == "uint8" and 0 or -60
    local u, v = random_with(dtype == "uint8" and { 1, 2, 3, 7, 100, 255 } or { 1, 2, -3, 7, -8, -1, 100 })
    u.int, u.dtype, v.dtype = { low, 120 }, dtype, dtype
    case {
      name = name .. " of " .. dtype, dtypes = { "float32" }, inputs = { u, v }, elementwise = body,
      run = function(ops, x, y) return ops[name](x, y) end,
    }
  end
end
case {
  name = "% and the gradients of remainder", inputs = { { shape = { 5, 7 }, range = { 5, 9 } },
    { shape = { 7 }, range = { 10.1, 12 } } }, gradients = { 1, 2 },
  run = function(_, a, b) return a % b, -a % b, a % -4.5, 100 % b end, step = 1e-7,
  reference = function(ops, a, b)
    local function rest(x, y) return x - ops.floor(x / y) * y end
    return rest(a, b), rest(-a, b), a - 9 * ops.cast(ops.greater_equal(a, 9), a.dtype) - 9
      + 4.5 * ops.cast(ops.less(a, 4.5), a.dtype), rest(ops.full_like(b, 100), b)
  end,
}
case {
  name = "floor_divide has no slope",
  check = function()
    local core = require "perigee.core"
    local gradients = core.grad(function(a, b) return (a:floor_divide(b) * a):sum() end,
      { core.tensor.tensor { 7, -7 }, core.tensor.tensor { 2, 2 } })
    assert.same({ 3, -4 }, gradients[1]:totable())
    assert.same({ 0, 0 }, gradients[2]:totable())
  end,
}
case {
  name = "remainder and floor_divide at zero, infinities, NaN", dtypes = { "float32" }, tolerance = 0,
  inputs = { { values = { 1, -1, 0, 3, -3, nan, 2, huge } }, { values = { 0, 0, 0, huge, huge, 1, nan, 2 } } },
  run = function(ops, a, b) return ops.remainder(a, b), ops.floor_divide(a, b) end,
  reference = function()
    return { nan, nan, nan, 3, huge, nan, nan, nan }, { huge, -huge, nan, 0, -1, nan, nan, nan }
  end,
}
case {
  name = "whole numbers by 0 and by -1", dtypes = { "float32" },
  inputs = { { values = { 7, -7, -2 ^ 31, 5 }, dtype = "int32" }, { values = { 0, 0, -1, -1 }, dtype = "int32" } },
  run = function(ops, a, b) return ops.remainder(a, b), ops.floor_divide(a, b) end,
  reference = function() return { 0, 0, 0, 0 }, { 0, 0, -2 ^ 31, -5 } end,
}
case {
  name = "a power of whole numbers is real", dtypes = { "float32" },
  inputs = { { values = { 2, 3, -2, 0 }, dtype = "int64" }, { values = { -1, 2, 3, 0 }, dtype = "int64" } },
  run = function(ops, a, b) return a ^ b, ops.pow(a, ops.cast(b, "int32")) end,
  reference = function() return { 0.5, 9, -8, 1 }, { 0.5, 9, -8, 1 } end, tolerance = { float32 = 1e-6 },
}

-- dtypes that meet
local function meets(a, b, expected, shape_a, shape_b)
  case {
    name = ("%s%s and %s%s"):format(a, shape_a and " scalar" or "", b, shape_b and " scalar" or ""),
    check = function()
      local ops = require("perigee.core").ops
      local x = ops.fill(shape_a or { 3 }, { value = 2, dtype = a })
      local y = ops.fill(shape_b or { 3 }, { value = 3, dtype = b })
      local z = x * y
      assert.equal(expected, z.dtype)
      assert.same({ 6, 6, 6 }, ops.expand(z, { 3 }):totable())
    end,
  }
end
meets("float32", "bfloat16", "float32")
meets("bfloat16", "float64", "float64")
meets("int64", "bfloat16", "bfloat16")
meets("uint8", "int32", "int32")
meets("bfloat16", "float32", "bfloat16", nil, {})
meets("float64", "bfloat16", "bfloat16", {}, nil)
meets("int64", "float32", "float32", nil, {})
meets("uint8", "int64", "uint8", nil, {})

case {
  name = "integers divide as float32", dtypes = { "float32" }, run = function(_, a, b) return a / b, a / 4 end,
  inputs = { { values = { 1, 2, 3 }, dtype = "int64" }, { values = { 2, 4, 8 }, dtype = "int64" } },
  reference = function() return { 0.5, 0.5, 0.375 }, { 0.25, 0.5, 0.75 } end,
}
case {
  name = "integers with a fraction", dtypes = { "float32" }, run = function(_, a) return a + 0.5, a:greater(1.5) end,
  inputs = { { values = { 1, 2, 3 }, dtype = "int32" } },
  reference = function() return { 1.5, 2.5, 3.5 }, { 0, 1, 1 } end,
}
case {
  name = "a large sum", dtypes = { "float32" }, inputs = { { shape = { 301, 257 } }, { shape = { 257 } } },
  run = function(_, a, b) return a + b end, elementwise = functions.add, tolerance = tolerance,
}
case {
  name = "shapes that do not match", run = function(_, a, b) return a + b end,
  inputs = { { shape = { 2, 3 } }, { shape = { 2 } } }, error = "add: [2,3] and [2] do not broadcast",
}
case { name = "a table", run = function(_, a) return a * {} end, inputs = { { shape = { 2 } } },
  error = "mul: expected tensors or numbers, got a table" }

return cases
