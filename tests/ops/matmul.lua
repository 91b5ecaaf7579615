local activations = require "perigee.core.activations"
local core = require "perigee.core"
local op = require "perigee.core.op"

local tolerance = { float32 = 2e-6, float64 = 2e-14, bfloat16 = 1e-2 }
local cases = {}
local function add(case)
  case.tolerance = case.tolerance or tolerance
  cases[#cases + 1] = case
end

--- Sums of products, made of other ops: a [...,M,K], b [...,K,N], broadcast.
local function product(ops, a, b)
  return ops.sum(ops.unsqueeze(a, -1) * ops.unsqueeze(b, -3), -2)
end

-- Sizes around the register tile, the panels and the blocks of the depth, and the oblong cases that are turned.
for _, size in ipairs {
  { 1, 1, 1 }, { 31, 33, 32 }, { 6, 16, 5 }, { 33, 7, 129 }, { 16, 257, 31 }, { 1, 260, 33 }, { 257, 1, 33 },
  { 5, 9, 1600 }, { 19, 33, 1601 }, { 64, 96, 0 }, { 200, 50, 385 },
} do
  local m, n, k = unpack(size)
  local small = m * n * math.max(k, 1) < 5000
  for bits = 0, 3 do
    local transpose_a, transpose_b = bits % 2 == 1, bits >= 2
    -- The rounding of a sum grows as the square root of its length, where it is taken in one sequence.
    local longer = math.max(1, math.sqrt(k / 400))
    add {
      tolerance = { float32 = longer * 2e-6, float64 = longer * 2e-14, bfloat16 = 1e-2 },
      name = ("matmul %dx%dx%d%s%s"):format(m, n, k, transpose_a and " transposed a" or "",
        transpose_b and " transposed b" or ""),
      run = function(ops, a, b) return ops.matmul(a, b, { transpose_a = transpose_a, transpose_b = transpose_b }) end,
      inputs = { { shape = transpose_a and { k, m } or { m, k } }, { shape = transpose_b and { n, k } or { k, n } } },
      reference = function(ops, a, b)
        if transpose_a then a = ops.transpose(a, 1, 2) end
        if transpose_b then b = ops.transpose(b, 1, 2) end
        return product(ops, a, b)
      end,
      gradients = small and k > 0 and { 1, 2 } or nil,
      strided = k > 0,
    }
  end
end

for _, pair in ipairs {
  { { 3, 4, 5 }, { 3, 5, 6 } }, { { 2, 3, 4, 5 }, { 5, 6 } }, { { 4, 5 }, { 2, 3, 5, 2 } },
  { { 2, 1, 4, 5 }, { 3, 5, 6 } },
  { { 2, 1, 3, 4, 5 }, { 1, 2, 3, 5, 1 } },
} do
  add {
    name = ("matmul of batches %s and %s"):format(op.shape_text(pair[1]), op.shape_text(pair[2])),
    run = function(_, a, b) return a:matmul(b) end,
    inputs = { { shape = pair[1] }, { shape = pair[2] } },
    reference = product,
    gradients = { 1, 2 },
  }
end

for _, name in ipairs { "none", unpack(activations.names) } do
  local function body(ops, x) return name == "none" and x or ops.activation(x, name) end
  for _, shape in ipairs { { 2, 7, 5 }, { 3, 20 }, { 33, 31 }, { 130, 5 }, { 9 }, { 6, 16 } } do
    local width = shape[#shape]
    local outputs = shape[1] == 6 and 24 or 18 -- cuBLASLt's epilogues that save something take multiples of 8
    local function reference(ops, x, weight, bias)
      return body(ops, ops.sum(ops.unsqueeze(x, -2) * weight, -1) + bias)
    end
    local inputs = { { shape = shape }, { shape = { outputs, width } }, { shape = { outputs } } }
    add {
      name = ("linear, %s, of %s"):format(name, op.shape_text(shape)),
      run = function(ops, x, weight, bias)
        return ops.linear(x, weight, bias, { activation = name ~= "none" and name or nil })
      end,
      inputs = inputs,
      reference = reference,
      gradients = { 1, 2, 3 },
      tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 1e-2 },
    }
    if name ~= "none" and #shape > 1 then -- compiled, the activation moves into the product; not so when run eagerly
      add {
        name = ("linear, then %s, of %s"):format(name, op.shape_text(shape)),
        run = function(ops, x, weight, bias) return body(ops, ops.linear(x, weight, bias)) end,
        inputs = inputs,
        reference = reference,
        gradients = { 1, 2, 3 },
        tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 3e-2 },
      }
    end
  end
  add {
    name = ("two linear layers with %s between"):format(name),
    run = function(ops, x, w1, b1, w2)
      return ops.linear(ops.linear(x, w1, b1, { activation = name ~= "none" and name or nil }), w2)
    end,
    inputs = { { shape = { 5, 4 } }, { shape = { 33, 4 } }, { shape = { 33 } }, { shape = { 3, 33 } } },
    reference = function(ops, x, w1, b1, w2)
      local h = body(ops, ops.sum(ops.unsqueeze(x, -2) * w1, -1) + b1)
      return ops.sum(ops.unsqueeze(h, -2) * w2, -1)
    end,
    gradients = { 1, 2, 3, 4 },
    tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 3e-2 },
  }
end

--- How many calls of each op a training program of two layers has.
local function calls_of_gradient(activation)
  local ops, p = core.ops, core.program.new "layers"
  local x, w1, w2 = p:input("x", { 8, 4 }), p:input("w1", { 6, 4 }), p:input("w2", { 3, 6 })
  local y = ops.linear(ops.activation(ops.linear(x, w1), activation), w2)
  local gradients = core.gradient(p, { y }, { ops.full_like(y, 1) }, { w1, w2 })
  local outputs = { { name = "dw1", value = gradients[1] }, { name = "dw2", value = gradients[2] } }
  local plan = require("perigee.core.plan").build(p, outputs)
  local count = {}
  for _, call in ipairs(plan.calls) do
    local name = call.node.definition.name
    count[name] = (count[name] or 0) + 1
  end
  return count
end

add {
  name = "an activation and its derivative become epilogues",
  check = function()
    local count = calls_of_gradient "silu"
    assert(count.matmul == 4, "forward 1, backward 3; found " .. tostring(count.matmul))
    assert(not count.activation_backward, "a derivative is left by itself")
    assert(count.activation == 1, "the forward's is an epilogue, and one is computed again for dw2; found "
      .. tostring(count.activation))
  end,
}

add { -- rows are the depth of the weight's gradient, and the bias's are sums over them
  name = "linear over more rows than a block is deep",
  run = function(ops, x, weight, bias) return ops.linear(x, weight, bias) end,
  inputs = { { shape = { 1601, 3 } }, { shape = { 9, 3 } }, { shape = { 9 } } },
  reference = function(ops, x, weight, bias) return ops.sum(ops.unsqueeze(x, -2) * weight, -1) + bias end,
  gradients = { 1, 2, 3 },
}

--- The order of a sum shows in 1 + 2^24 + 1 - 2^24, where float32 has no 2^24 + 1: taken one by one, nothing is left;
--- of each pair the second first, 1 is (kernels/matmul/element.h).
add {
  name = "bfloat16 is multiplied in pairs exactly where the name of the kernels says so",
  check = function()
    local a, b = core.tensor.tensor { { 1, 4096, 1, -4096 } }, core.tensor.tensor { { 1 }, { 4096 }, { 1 }, { 4096 } }
    local sum = core.ops.matmul(a:to "bfloat16", b:to "bfloat16"):totable()[1][1]
    assert(sum == (require("perigee.core.device").cpu_multiplies_bfloat16() and 1 or 0), tostring(sum))
  end,
}

add {
  name = "a linear layer's two gradients are one call",
  check = function()
    local ops, p = core.ops, core.program.new "layer"
    local x, weight, bias = p:input("x", { 2, 4, 3 }), p:input("weight", { 5, 3 }), p:input("bias", { 5 })
    local y = ops.linear(x, weight, bias)
    local gradients = core.gradient(p, { y }, { ops.full_like(y, 1) }, { weight, bias })
    local outputs = { { name = "bias", value = gradients[2] }, { name = "weight", value = gradients[1] } }
    local executable = core.executable.compile(p, outputs)
    local names = {}
    for k, call in ipairs(executable.plan.calls) do names[k] = call.node.definition.name end
    assert(table.concat(names, " ") == "fill matmul", table.concat(names, " "))
    local out = executable:run { x = ops.arange(24):reshape { 2, 4, 3 } }
    for k = 1, 5 do
      assert(out.bias:totable()[k] == 8)
      for c = 1, 3 do assert(out.weight:totable()[k][c] == 8 * (c - 1) + 84) end
    end
  end,
}

--- The sums of out's columns, as a call of its own makes them: in a training program on a GPU they are the bias's
--- gradient. Sizes for cuBLASLt's epilogue (multiples of 8) and others.
for _, size in ipairs { { 33, 24, 16 }, { 5, 40, 24 }, { 31, 9, 5 }, { 3, 8, 0 } } do
  local rows, hidden, depth = unpack(size)
  for _, name in ipairs { "gelu_tanh", "silu" } do
    add {
      name = ("matmul with the sums of its columns, %dx%dx%d, the derivative of %s"):format(rows, hidden, depth, name),
      run = function(_, a, b, aux)
        local p = core.program.new "column sums"
        local values = { p:operand(a), p:operand(b), false, p:operand(aux) }
        local kind = #activations.names + activations.number[name]
        local attributes = { transpose_a = 0, transpose_b = 0, activation = kind }
        local definition = op.defined.matmul
        local specs = definition.shape { a = a, b = b, transpose_a = 0, transpose_b = 0, activation = kind }
        local made = p:record(definition, values, attributes, specs)
        local outputs = { { name = "out", value = made[1] }, { name = "sums", value = made[4] } }
        local results = core.executable.compile(p, outputs, { device = a.device }):run {}
        return results.out, results.sums
      end,
      inputs = { { shape = { 2, rows, depth } }, { shape = { depth, hidden } }, { shape = { 2, rows, hidden } } },
      reference = function(ops, a, b, aux)
        local out = ops.activation_backward(product(ops, a, b), aux, activations.number[name])
        return out, ops.sum(ops.reshape(out, { -1, hidden }), 1)
      end,
      strided = false, compiled = false,
      tolerance = { float32 = 5e-6, float64 = 1e-12, bfloat16 = 2e-2 },
    }
  end
end

add { name = "matmul of sizes that do not fit",
  run = function(ops, a, b) return ops.matmul(a, b) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 4, 5 } } },
  error = "matmul: a is [2,3], b is [4,5]; the inner sizes must match and the batch dimensions broadcast" }
add { name = "matmul of batches that do not fit",
  run = function(ops, a, b) return ops.matmul(a, b) end,
  inputs = { { shape = { 2, 2, 3 } }, { shape = { 3, 3, 5 } } },
  error = "matmul: a is [2,2,3], b is [3,3,5]" }
add { name = "matmul of a vector that doesn't fit",
  run = function(ops, a, b) return ops.matmul(a, b) end,
  inputs = { { shape = { 4 } }, { shape = { 3, 5 } } },
  error = "matmul: a is [1,4], b is [3,5]; the inner sizes must match" }
add { name = "matmul of two dtypes",
  run = function(ops, a, b) return ops.matmul(a, b) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 3, 5 }, dtype = "float64" } },
  error = "matmul: a is float32, b is float64; they must have one dtype" }
add { name = "linear with a weight that does not fit",
  run = function(ops, x, weight) return ops.linear(x, weight) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 3, 5 } } },
  error = "linear: x is [2,3], weight is [3,5]; weight must be [out,in] with x's last dimension as in" }
add { name = "linear with an unknown activation",
  run = function(ops, x, weight) return ops.linear(x, weight, nil, { activation = "relu" }) end,
  inputs = { { shape = { 2, 3 } }, { shape = { 5, 3 } } },
  error = "linear: unknown activation 'relu'; expected gelu_tanh, gelu_erf, silu or quick_gelu" }
return cases
