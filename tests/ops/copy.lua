--- Copies, casts, constants, concat, narrow_backward, flip and the views that they serve.
local core = require "perigee.core"
local tensor = core.tensor

local cases = {}
local function case(t) cases[#cases + 1] = t end
local exact = { float32 = 0, bfloat16 = 0, float64 = 0 }

-- ---- permuted copies: each shape takes another path ----
for _, shape in ipairs {
  { shape = { 33, 31 }, order = { 2, 1 } }, { shape = { 3, 33, 65 }, order = { 1, 3, 2 } },
  { shape = { 65, 3, 33 }, order = { 3, 2, 1 } }, { shape = { 2, 9, 3, 4, 5 }, order = { 3, 1, 4, 2, 5 } },
  { shape = { 257, 7 }, order = { 2, 1 } }, { shape = { 7, 257 }, order = { 2, 1 } },
  { shape = { 1, 32, 1 }, order = { 3, 2, 1 } }, { shape = { 8, 8, 8, 8 }, order = { 4, 2, 3, 1 } },
  { shape = { 5, 200, 200 }, order = { 1, 3, 2 } }, { shape = { 2, 33, 3, 64 }, order = { 1, 3, 2, 4 } },
} do
  local small = #shape.shape < 5 and shape.shape[2] < 100
  case {
    name = "permuted " .. table.concat(shape.shape, "x") .. " " .. table.concat(shape.order),
    run = function(_, x) return x:permute { unpack(shape.order) }:contiguous() end,
    inputs = { { shape = shape.shape } }, gradients = small and { 1 } or nil, tolerance = exact,
    reference = function(_, x)
      local strides, stride, sizes, list = {}, 1, {}, x:totable()
      local flat = {}
      local function flatten(v)
        if type(v) == "number" then flat[#flat + 1] = v else for _, w in ipairs(v) do flatten(w) end end
      end
      flatten(list)
      for d = #shape.shape, 1, -1 do strides[d], stride = stride, stride * shape.shape[d] end
      for d, from in ipairs(shape.order) do sizes[d] = shape.shape[from] end
      local function build(d, offset)
        if d > #sizes then return flat[offset + 1] end
        local t = {}
        for k = 1, sizes[d] do t[k] = build(d + 1, offset + (k - 1) * strides[shape.order[d]]) end
        return t
      end
      return build(1, 0)
    end,
  }
end
for _, dtype in ipairs { "uint8", "int32", "int64" } do
  case {
    name = "transposed " .. dtype, dtypes = { "float32" }, run = function(_, x) return x:transpose():contiguous() end,
    inputs = { { shape = { 40, 70 }, int = { 0, 200 }, dtype = dtype } },
    reference = function(_, x)
      local t, y = x:totable(), {}
      for j = 1, 70 do
        y[j] = {}
        for i = 1, 40 do y[j][i] = t[i][j] end
      end
      return y
    end,
  }
end

-- ---- casts ----
local huge, nan = math.huge, 0 / 0
local function casts(from, to, values, expected)
  case {
    name = ("%s to %s"):format(from, to),
    check = function()
      local got = tensor.tensor(values, from):to(to)
      assert.equal(to, got.dtype)
      for k, x in ipairs(got:totable()) do
        local y = expected[k]
        assert(x == y or (x ~= x and y ~= y), ("element %d is %.17g, expected %.17g"):format(k, x, y))
      end
    end,
  }
end
casts("float32", "bfloat16", { 1, 1.00390625, 1.01171875, -1.0048828125, 3.4e38, huge, nan, 2 ^ -133 },
  { 1, 1, 1.015625, -1.0078125, huge, huge, nan, 2 ^ -133 })
casts("bfloat16", "float32", { 1, -2.5, huge, nan }, { 1, -2.5, huge, nan })
casts("float32", "float64", { 1.5, -huge, nan }, { 1.5, -huge, nan })
casts("float64", "float32", { 1 + 2 ^ -30, 1e300, -1e-300 }, { 1, huge, 0 })
casts("float32", "int32", { 1.9, -1.9, 3e9, -3e9, huge, -huge, nan },
  { 1, -1, 2 ^ 31 - 1, -2 ^ 31, 2 ^ 31 - 1, -2 ^ 31, 0 })
casts("float64", "int64", { 2 ^ 53, -2 ^ 53, 1e300, -1e300, nan }, { 2 ^ 53, -2 ^ 53, 2 ^ 63, -2 ^ 63, 0 })
casts("float32", "uint8", { 0.9, 255.9, 300, -1, nan }, { 0, 255, 255, 0, 0 })
casts("int64", "float32", { 2 ^ 24 + 1, -7 }, { 2 ^ 24, -7 })
casts("int64", "int32", { 2 ^ 40, -2 ^ 40, 5 }, { 2 ^ 31 - 1, -2 ^ 31, 5 })
casts("int32", "uint8", { -5, 5, 500 }, { 0, 5, 255 })
casts("int64", "float64", { 2 ^ 53 - 1 }, { 2 ^ 53 - 1 })
casts("uint8", "int64", { 0, 255 }, { 0, 255 })
casts("int32", "bfloat16", { 257, -3 }, { 256, -3 })
casts("uint8", "float32", { 0, 7, 255 }, { 0, 7, 255 })
for _, to in ipairs { "float32", "bfloat16", "float64" } do
  case {
    name = "cast to " .. to, run = function(ops, x) return ops.cast(x, to) end, inputs = { { shape = { 5, 33, 7 } } },
    reference = function(_, x) return x end, gradients = to == "float64" and { 1 } or nil,
    tolerance = { float32 = 4e-3, bfloat16 = 4e-3, float64 = 4e-3 }, gradient_tolerance = 4e-3,
  }
end
-- From every dtype to every other one, on every device as on the CPU.
local every = { "float32", "bfloat16", "float64", "int32", "int64", "uint8" }
for _, from in ipairs(every) do
  local function to_others(o, x)
    local list = {}
    for _, to in ipairs(every) do
      if to ~= from then list[#list + 1] = o.cast(x, to) end
    end
    return unpack(list)
  end
  for _, n in ipairs { 33, 257, 1024 } do
    local input = { shape = { n }, dtype = from }
    if from == "uint8" then input.int = { 0, 255 }
    elseif from:find "int" then input.int = { -300, 70000 }
    else input.range = { -300, 300 } end
    case { name = ("cast %d %s to all"):format(n, from), dtypes = { "float32" }, tolerance = 0, inputs = { input },
      run = to_others, reference = to_others }
  end
end
case { name = "cast to nothing known", run = function(ops, x) return ops.cast(x, "float16") end,
  inputs = { { shape = { 1 } } }, error = "cast: unknown dtype 'float16'; there is no 16-bit float but" }

-- ---- NaN of any bits ----
case {
  name = "NaN with other bits is a number in Lua",
  check = function()
    local ffi = require "ffi"
    local patterns = {
      float32 = { "uint32_t", 0xffffffff, 0x7f800001, 0xfff80000 }, bfloat16 = { "uint16_t", 0xffff, 0x7f81, 0xfff0 },
      float64 = { "uint64_t", 0xffffffffffffffffULL, 0x7ff0000000000001ULL, 0xfffb000000000000ULL },
    }
    for dtype, p in pairs(patterns) do
      local bits = ffi.new(p[1] .. "[4]", p[2], p[3], p[4], 0)
      local t = tensor.tensor(bits, { 4 }, dtype)
      local values = t:totable()
      for k = 1, 3 do
        assert.equal("number", type(values[k]))
        assert.is_true(values[k] ~= values[k])
      end
      assert.equal(0, values[4])
      assert.matches("nan, nan, nan,   0", tostring(t))
    end
  end,
}

-- ---- constants ----
case {
  name = "fill and arange",
  check = function()
    local ops = core.ops
    for _, dtype in ipairs { "float32", "float64", "bfloat16", "int32", "int64", "uint8" } do
      for _, n in ipairs { 0, 1, 31, 512, 513, 1025, 40000 } do
        local f = ops.fill({ n }, { value = 3, dtype = dtype })
        local a = ops.arange(math.min(n, 200), { start = 2, dtype = dtype })
        assert.equal(3 * n, f:to "float64":sum():item())
        for k, v in ipairs(a:totable()) do assert.equal(k + 1, v) end
        assert.equal(dtype, a.dtype)
      end
    end
    assert.same({ 1, 0.75, 0.5, 0.25 }, ops.arange(4, { start = 1, step = -0.25 }):totable())
    assert.equal(2.5, ops.fill({}, { value = 2.5 }):item())
  end,
}

-- Constants on an input's device.
for _, dtype in ipairs { "float32", "bfloat16", "int32", "int64", "uint8" } do
  local function constants(o, x)
    local list = { o.cast(x, dtype) }
    for _, n in ipairs { 1, 31, 72, 257, 1025 } do
      list[#list + 1] = o.fill({ n }, { value = 3.75, dtype = dtype, device = x.device })
      list[#list + 1] = o.arange(math.min(n, 200), { start = 2, step = 1, dtype = dtype, device = x.device })
    end
    return unpack(list)
  end
  case { name = "fill and arange beside an input, " .. dtype, dtypes = { "float32" }, tolerance = 0,
    inputs = { { shape = { 3 } } }, run = constants, reference = constants, compiled = false }
end

-- ---- concat, stack, narrow_backward, flip ----
for dim = 1, 3 do
  local function shape(size)
    local s = { 3, 5, 33 }
    s[dim] = size
    return s
  end
  case {
    name = "concat along " .. dim, run = function(ops, a, b, c) return ops.concat({ a, b, c }, dim) end,
    inputs = { { shape = shape(1) }, { shape = shape(7) }, { shape = shape(4) } }, gradients = { 1, 2, 3 },
    tolerance = exact, reference = function(ops, a, b, c)
      return ops.narrow_backward(a, { dim = dim, start = 1, size = 12 })
        + ops.narrow_backward(b, { dim = dim, start = 2, size = 12 })
        + ops.narrow_backward(c, { dim = dim, start = 9, size = 12 })
    end, gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
  }
  case {
    name = "flip along " .. dim, inputs = { { shape = { 3, 5, 33 } } },
    run = function(ops, x) return ops.flip(x, dim) end,
    gradients = { 1 }, tolerance = exact, gradient_tolerance = exact,
    reference = function(ops, x)
      local parts = {}
      for k = 1, x.shape[dim] do parts[k] = ops.narrow(x, dim, x.shape[dim] + 1 - k, 1) end
      return ops.concat(parts, dim)
    end,
  }
  case {
    name = "narrow_backward along " .. dim,
    run = function(ops, dy) return ops.narrow_backward(dy, { dim = dim, start = 3, size = 40 }) end,
    inputs = { { shape = { 3, 5, 33 } } }, gradients = { 1 }, tolerance = exact, gradient_tolerance = exact,
    reference = function(_, dy)
      local function walk(t, d, at)
        local size = ({ 3, 5, 33 })[d]
        local result = {}
        for k = 1, d == dim and 40 or size do
          local from = d == dim and k - 2 or k
          local inside = at and from >= 1 and from <= size
          if d == 3 then result[k] = inside and t[from] or 0
          else result[k] = walk(inside and t[from] or {}, d + 1, inside) end
        end
        return result
      end
      return walk(dy:totable(), 1, true)
    end,
  }
  case {
    name = "gradient of narrow along " .. dim, inputs = { { shape = { 4, 5, 6 } } }, gradients = { 1 },
    run = function(_, x) return x:narrow(dim, 2, 2) * x:narrow(dim, 1, 2) end,
    reference = function(ops, x) return ops.narrow(x, dim, 2, 2) * ops.narrow(x, dim, 1, 2) end,
  }
end
case {
  name = "concat with parts that take no gradient", gradients = { 2, 3 }, tolerance = exact, gradient_tolerance = exact,
  inputs = { { shape = { 3, 5 } }, { shape = { 3, 4 } }, { shape = { 3, 2 } } },
  run = function(ops, first, a, b)
    return ops.concat({ first, a, ops.full_like(a, 2, { shape = { 3, 1 } }), b }, 2)
  end,
  reference = function(ops, first, a, b)
    local function pad(x, start) return ops.narrow_backward(x, { dim = 2, start = start, size = 12 }) end
    return pad(first, 1) + pad(a, 6) + pad(ops.fill({ 3, 1 }, { value = 2, dtype = "float64" }), 10) + pad(b, 11)
  end,
}
-- In whole vectors.
case {
  name = "concat and narrow_backward of 64 and 128", inputs = { { shape = { 3, 5, 64 } }, { shape = { 3, 5, 128 } } },
  run = function(ops, a, b)
    return ops.concat({ a, b, a }, 3), ops.concat({ a, a }, 2),
      ops.narrow_backward(b, { dim = 3, start = 65, size = 256 })
  end,
  gradients = { 1, 2 }, tolerance = exact, gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
  reference = function(ops, a, b)
    local function pad(x, start) return ops.narrow_backward(x, { dim = 3, start = start, size = 256 }) end
    local twice = ops.stack({ a, a }, 2)
    return pad(a, 1) + pad(b, 65) + pad(a, 193), ops.reshape(twice, { 3, 10, 64 }),
      ops.concat({ a * 0, b, a * 0 }, 3)
  end,
}
case {
  name = "stack", run = function(ops, a, b) return ops.stack({ a, b }, 1), ops.stack({ a, b }, 3) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 2, 3 } } }, gradients = { 1, 2 }, tolerance = exact,
  reference = function(_, a, b)
    local x, y, last = a:totable(), b:totable(), {}
    for i = 1, 2 do
      last[i] = {}
      for j = 1, 3 do last[i][j] = { x[i][j], y[i][j] } end
    end
    return { x, y }, last
  end, gradient_tolerance = { float32 = 1e-6, bfloat16 = 1e-2 },
}
case {
  name = "concat of forty", run = function(ops, x) return ops.concat(ops.chunk(x, 40, 2), 2) end,
  inputs = { { shape = { 3, 40 } } }, gradients = { 1 }, tolerance = exact, gradient_tolerance = exact,
  reference = function(_, x) return x end,
}
case { name = "concat of unlike shapes", run = function(ops, a, b) return ops.concat({ a, b }, 1) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 2, 4 } } },
  error = "concat: part 1 is float32 [2,3], part 2 is float32 [2,4]; they may differ in dimension 1 only" }
case { name = "concat of nothing", run = function(ops) return ops.concat({}, 1) end, error = "concat: expected a list" }
case { name = "flip of no dimension", run = function(ops, x) return ops.flip(x, 3) end,
  inputs = { { shape = { 2, 3 } } }, error = "flip: dimension 3 of a tensor [2,3]" }

-- ---- views ----
case {
  name = "views and their gradients", inputs = { { shape = { 4, 6, 5 } } }, gradients = { 1 },
  run = function(ops, x)
    local a, b, c = unpack(x:chunk(3, 2))
    return a * b:transpose(2, 1):reshape { 4, 2, 5 } + c, x:select(3, 2),
      ops.expand(x:narrow(1, 1, 1), { 3, 6, 5 }) * 2, x:flatten(2, 3):unsqueeze(1)
  end,
  reference = function(ops, x)
    local parts = ops.chunk(x, 3, 2)
    local b = ops.reshape(ops.contiguous(ops.transpose(parts[2], 1, 2)), { 4, 2, 5 })
    return parts[1] * b + parts[3], ops.reshape(ops.narrow(x, 3, 2, 1), { 4, 6 }),
      ops.concat({ ops.narrow(x, 1, 1, 1), ops.narrow(x, 1, 1, 1), ops.narrow(x, 1, 1, 1) }, 1) * 2,
      ops.reshape(x, { 1, 4, 30 })
  end,
}
case {
  name = "stop_gradient",
  check = function()
    local x = tensor.tensor { 1, 2, 3 }
    local gradients, value = core.grad(function(v) return (core.ops.stop_gradient(v) * v):sum() end, { x })
    assert.equal(14, value:item())
    assert.same({ 1, 2, 3 }, gradients[1]:totable())
  end,
}
return cases
