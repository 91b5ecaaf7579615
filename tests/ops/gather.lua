local cases = {}
local exact = { float32 = 0, float64 = 0, bfloat16 = 0 }
local sums = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 1e-2 }

--- The same by comparison: one where index = k, [..., J, K] against x.
local function chosen(ops, index, size, dtype)
  return ops.cast(ops.equal(ops.unsqueeze(index, -1), ops.arange(size, { dtype = index.dtype })), dtype)
end

for _, dtype in ipairs { "int32", "int64" } do
  cases[#cases + 1] = {
    name = "gather along the last dimension, " .. dtype,
    run = function(ops, x, index) return ops.gather(x, -1, index) end,
    inputs = { { shape = { 5, 9 } }, { shape = { 5, 33 }, int = { 0, 8 }, dtype = dtype } },
    reference = function(ops, x, index) return ops.sum(chosen(ops, index, 9, x.dtype) * ops.unsqueeze(x, 2), -1) end,
    gradients = { 1 },
    tolerance = exact,
    gradient_tolerance = sums,
  }
end

cases[#cases + 1] = {
  name = "gather along a middle dimension, every element its own index",
  run = function(_, x, index) return x:gather(2, index) end,
  inputs = { { shape = { 3, 7, 5 } }, { shape = { 3, 4, 5 }, int = { 0, 6 }, dtype = "int64" } },
  reference = function(ops, x, index)
    local turned = ops.transpose(x, 2, 3) -- [3,5,7]
    local places = ops.transpose(index, 2, 3) -- [3,5,4]
    return ops.transpose(ops.sum(chosen(ops, places, 7, x.dtype) * ops.unsqueeze(turned, 3), -1), 2, 3)
  end,
  gradients = { 1 },
  tolerance = exact,
  gradient_tolerance = sums,
}

cases[#cases + 1] = {
  name = "gather of whole tokens by an expanded index",
  run = function(ops, x, index) return ops.gather(x, 2, ops.expand(ops.unsqueeze(index, -1), { 2, 3, 130 })) end,
  inputs = { { shape = { 2, 6, 130 } }, { values = { { 5, 0, 5 }, { 3, 2, 1 } }, dtype = "int64" } },
  reference = function(ops, x, index)
    return ops.sum(ops.unsqueeze(chosen(ops, index, 6, x.dtype), -1) * ops.unsqueeze(x, 2), 3)
  end,
  gradients = { 1 },
  tolerance = exact,
  gradient_tolerance = sums,
}

for _, shape in ipairs { { 4 }, { 2, 3 }, { 257 }, { 72, width = 72 } } do
  cases[#cases + 1] = {
    name = "embedding by an index of " .. table.concat(shape, "x"),
    run = function(ops, rows, index) return ops.embedding(rows, index) end,
    inputs = { { shape = { 11, shape.width or 33 } }, { shape = { unpack(shape) }, int = { 0, 10 }, dtype = "int64" } },
    reference = function(ops, rows, index)
      return ops.sum(ops.unsqueeze(chosen(ops, index, 11, rows.dtype), -1) * rows, -2)
    end,
    gradients = { 1 },
    tolerance = exact,
    gradient_tolerance = sums,
  }
end

--- Sums by comparison, for index and source [R,J] along the last dimension.
local function added(ops, index, source, size)
  return ops.sum(chosen(ops, index, size, source.dtype) * ops.unsqueeze(source, -1), 2)
end

cases[#cases + 1] = {
  name = "scatter_add with many of one index",
  run = function(ops, x, index, source) return ops.scatter_add(x, 2, index, source) end,
  inputs = { { shape = { 5, 4 } }, { shape = { 5, 33 }, int = { 0, 3 }, dtype = "int32" }, { shape = { 5, 33 } } },
  reference = function(ops, x, index, source) return x + added(ops, index, source, 4) end,
  gradients = { 1, 3 },
  tolerance = sums,
}
cases[#cases + 1] = {
  name = "scatter_add to zeros of whole rows",
  run = function(ops, index, source)
    return ops.scatter_add(nil, 1, ops.expand(ops.unsqueeze(index, 2), { 9, 257 }), source, { size = 6 })
  end,
  inputs = { { values = { 3, 3, 0, 5, 3, 1, 0, 5, 3 }, dtype = "int64" }, { shape = { 9, 257 } } },
  reference = function(ops, index, source)
    return ops.sum(ops.unsqueeze(chosen(ops, index, 6, source.dtype), -1) * ops.unsqueeze(source, 2), 1)
  end,
  gradients = { 2 },
  tolerance = sums,
}

cases[#cases + 1] = {
  name = "gather along the first dimension, contiguous indices of 64",
  run = function(ops, x, index) return ops.gather(x, 1, index) end,
  inputs = { { shape = { 7, 64 } }, { shape = { 3, 64 }, int = { 0, 6 }, dtype = "int32" } },
  reference = function(ops, x, index)
    return ops.sum(chosen(ops, index, 7, x.dtype) * ops.unsqueeze(ops.transpose(x), 1), -1)
  end,
  gradients = { 1 },
  tolerance = exact,
  gradient_tolerance = sums,
}

-- A GPU cannot stop: an index out of bounds is NaN there.
if (os.getenv "PERIGEE_TEST_DEVICES" or ""):find "cuda" then
  cases[#cases + 1] = { name = "indices out of bounds on cuda", check = function()
    local ops, tensor = require("perigee.core").ops, require "perigee.core.tensor"
    local x = tensor.tensor({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 } }):to "cuda"
    local index = tensor.tensor({ 1, 2, -1, 0 }, "int64"):to "cuda"
    local got = ops.embedding(x, index):to "cpu":totable()
    local sums_of = ops.scatter_add(nil, 1, ops.expand(ops.unsqueeze(index, 2), { 4, 4 }), ops.embedding(x, index),
      { size = 2 }):to "cpu":totable()
    for k = 1, 4 do
      assert.equal(4 + k, got[1][k])
      assert.equal(k, got[4][k])
      for _, v in ipairs { got[2][k], got[3][k], sums_of[1][k], sums_of[2][k] } do assert.is_true(v ~= v) end
    end
  end }
end

cases[#cases + 1] = { name = "embedding with an index past the end",
  run = function(ops, rows, index) return ops.embedding(rows, index) end,
  inputs = { { shape = { 11, 4 } }, { values = { 3, 11 }, dtype = "int64" } },
  error = "gather: index 11 at place 2 of dimension 1; the tensor has 11 entries there" }
cases[#cases + 1] = { name = "gather with a negative index",
  run = function(ops, x, index) return ops.gather(x, 1, index) end,
  inputs = { { shape = { 3 } }, { values = { 0, -1 }, dtype = "int32" } },
  error = "gather: index -1 at place 2 of dimension 1; the tensor has 3 entries there" }
cases[#cases + 1] = { name = "gather with an index of real numbers",
  run = function(ops, x, index) return ops.gather(x, 1, index) end,
  inputs = { { shape = { 3 } }, { shape = { 2 } } },
  error = "gather: the index is float32; it must be int32 or int64" }
cases[#cases + 1] = { name = "gather with an index of another shape",
  run = function(ops, x, index) return ops.gather(x, 2, index) end,
  inputs = { { shape = { 3, 4 } }, { shape = { 2, 4 }, int = { 0, 3 }, dtype = "int64" } },
  error = "gather: x is [3,4], index is [2,4]; they may differ in dimension 2 only" }
return cases
