--- Matrix multiplication and linear layers: op(a)·op(b) + bias, with an activation, or the derivative of one, on the
--- result while it is in cache.
local activations = require "perigee.core.activations"
local column_sums = require "perigee.core.column_sums"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

-- Attribute `activation`: 0 none, 1 to n the kinds of activation/kinds.h, n + kind "times the derivative at aux".
local NONE, DERIVATIVE = 0, #activations.names

--- Rows and columns of op(x).
local function matrix(shape, transposed)
  local rows, columns = shape[#shape - 1], shape[#shape]
  if transposed == 1 then return columns, rows end
  return rows, columns
end

--- The batch dimensions that two shapes broadcast to, or nil.
local function batch_of(a, b)
  local n, batch = math.max(#a, #b) - 2, {}
  for d = 1, n do
    local x, y = a[#a - 2 - n + d] or 1, b[#b - 2 - n + d] or 1
    if x ~= y and x ~= 1 and y ~= 1 then return nil end
    batch[d] = x == 1 and y or x
  end
  return batch
end

local function result_shape(a)
  op.expect_one_dtype("matmul", a, { "a", "b", "bias", "aux" })
  local left, right = a.a.shape, a.b.shape
  if #left < 2 or #right < 2 then
    fail("matmul: a is %s, b is %s; both need two dimensions or more", text(left), text(right))
  end
  local m, k = matrix(left, a.transpose_a)
  local inner, n = matrix(right, a.transpose_b)
  local batch = batch_of(left, right)
  if k ~= inner or not batch then
    fail("matmul: a is %s%s, b is %s%s; the inner sizes must match and the batch dimensions broadcast", text(left),
      a.transpose_a == 1 and " transposed" or "", text(right), a.transpose_b == 1 and " transposed" or "")
  end
  if a.bias and not op.same_shape(a.bias.shape, { n }) then
    fail("matmul: the result has %d columns, bias is %s", n, text(a.bias.shape))
  end
  batch[#batch + 1], batch[#batch + 2] = m, n
  return batch
end

local matmul

local function product(a, b, transpose_a, transpose_b)
  return matmul(a, b, nil, nil, { transpose_a = transpose_a, transpose_b = transpose_b, activation = NONE })
end

--- All rows of a batch of matrices, one under the other.
local function rows_of(x) return ops.reshape(x, { -1, x.shape[#x.shape] }) end

local function gradient_of_a(n, dy)
  local da
  if n.transpose_a == 1 then da = product(n.b, dy, n.transpose_b, 1)
  else da = product(dy, n.b, 0, 1 - n.transpose_b) end
  return op.unbroadcast(da, n.a.shape)
end

--- `rows`: dy as one matrix.
local function gradient_of_b(n, dy, rows)
  local a = n.a
  if n.transpose_a == 0 and #n.b.shape == 2 then a, dy = #a.shape > 2 and rows_of(a) or a, rows end
  local db
  if n.transpose_b == 1 then db = product(dy, a, 1, n.transpose_a)
  else db = product(a, dy, 1 - n.transpose_a, 0) end
  return op.unbroadcast(db, n.b.shape)
end

--- f(a·b): an activation that reads the product becomes its epilogue; the product stays available as `pre`.
local function take_in_activation(graph, node)
  if node.activation ~= NONE then return end
  local out = node.outputs[1]
  for _, reader in ipairs(graph:readers(out)) do
    if reader.definition.name == "activation" then
      graph:rewrite(node, node.definition, node.inputs,
        { transpose_a = node.transpose_a, transpose_b = node.transpose_b, activation = reader.kind },
        { [reader.outputs[1]] = 1, [out] = 2 }, { node, reader })
      return
    end
  end
end

--- (a·b)·f'(aux): the backward pass continues through an activation whose gradient nobody else reads.
local function take_in_derivative(graph, node)
  if node.activation ~= NONE then return end
  local out = node.outputs[1]
  local reader = graph:only_reader(out)
  if not reader or reader.definition.name ~= "activation_backward" or rawequal(reader.inputs[2], out) then return end
  if not rawequal(reader.inputs[1], out) then return end
  graph:rewrite(reader, node.definition, { node.inputs[1], node.inputs[2], node.inputs[3], reader.inputs[2] },
    { transpose_a = node.transpose_a, transpose_b = node.transpose_b, activation = DERIVATIVE + reader.kind },
    { [reader.outputs[1]] = 1 }, { node, reader })
end

--- aᵀ·b and the sums of a's columns, the gradients of a linear layer's weight and bias: one call makes both.
local function take_in_sums(graph, node)
  local a, b, bias = unpack(node.inputs, 1, 3)
  if node.transpose_a ~= 1 or node.activation ~= NONE or bias or #a.shape ~= 2 or #b.shape ~= 2 then return end
  if graph:is_used(node.outputs[2]) or graph:is_used(node.outputs[3]) then return end
  if column_sums.are_made_with(graph, a) then return end
  for _, reader in ipairs(graph:readers(a)) do
    if reader.definition.name == "sum" and op.same_shape(reader.outputs[1].shape, node.outputs[3].shape)
      and reader.mask == 1
      and not graph:depends_on({ b }, reader) then
      graph:rewrite(node, node.definition, node.inputs,
        { transpose_a = node.transpose_a, transpose_b = node.transpose_b, activation = NONE },
        { [node.outputs[1]] = 1, [reader.outputs[1]] = 3 }, { node, reader })
      return
    end
  end
end

--- The derivative that vendor libraries take together with the sums of its columns: in bfloat16 alone.
local function has_gelu_derivative(node)
  return node.activation == DERIVATIVE + activations.number.gelu_tanh and node.outputs[1].dtype == "bfloat16"
    and not node.bias
end

matmul = op.define {
  name = "matmul",
  multiplies_bfloat16 = true,
  inputs = { "a", "b", "bias?", "aux?" },
  outputs = { "out", "pre", "sums", "column_sums" },
  ints = { "transpose_a", "transpose_b", "activation" },
  optional_outputs = { pre = true, sums = true, column_sums = true },
  recompute = function(n) -- f(a·b) from a·b
    if n.activation == NONE or n.activation > DERIVATIVE then return end
    return op.defined.activation, { n.pre }, { kind = n.activation }
  end,
  shape = function(a)
    local shape = result_shape(a)
    return { { shape, a.a.dtype }, { shape, a.a.dtype }, { { (matrix(a.a.shape, a.transpose_a)) }, a.a.dtype },
             { { shape[#shape] }, a.a.dtype } }
  end,
  vjp = function(n, dy)
    if n.activation > DERIVATIVE then fail "matmul: a fused backward pass has no gradient of its own" end
    if n.activation ~= NONE then dy = ops.activation_backward(dy, n.pre, n.activation) end
    local rows = #dy.shape > 2 and rows_of(dy) or dy
    return {
      a = n:needs "a" and gradient_of_a(n, dy) or nil,
      b = n:needs "b" and gradient_of_b(n, dy, rows) or nil,
      bias = n.bias and n:needs "bias" and ops.sum(rows, 1) or nil,
    }
  end,
  plain = function(a)
    local y = product(a.a, a.b, a.transpose_a, a.transpose_b)
    if a.bias then y = y + a.bias end
    if a.activation > DERIVATIVE then return ops.activation_backward(y, a.aux, a.activation - DERIVATIVE) end
    return a.activation == NONE and y or ops.activation(y, activations.name[a.activation])
  end,
  flops = function(a)
    local _, k = matrix(a.a.shape, a.transpose_a)
    return 2 * k * op.numel(a.out.shape)
  end,
  column_sums = { of = 1, into = 4, when = has_gelu_derivative },
  fusions = { take_in_activation, take_in_derivative, take_in_sums, column_sums.take_in },
}

--- A transposed view is read through a flag instead of being copied.
local function untransposed(x, transposed)
  if #x.shape >= 2 and not layout.is_contiguous(x) then
    local turned = ops.transpose(x, -2, -1)
    if layout.is_contiguous(turned) then return turned, 1 - transposed end
  end
  return x, transposed
end

local M = {}

--- matmul where a or b is a vector: as a matrix of one row or one column, whose dimension then goes.
local function with_vector(a, b, options)
  local row, column = #a.shape == 1, #b.shape == 1
  local y = M.matmul(row and ops.unsqueeze(a, 1) or a, column and ops.unsqueeze(b, 2) or b, {
    transpose_a = not row and options.transpose_a, transpose_b = not column and options.transpose_b,
  })
  if column then y = ops.squeeze(y, -1) end
  return row and ops.squeeze(y, column and -1 or -2) or y
end

--- a [...,M,K] times b [...,K,N]; batch dimensions broadcast. A vector a is a row, a vector b a column, and the
--- result lacks that dimension. Options: transpose_a, transpose_b, of the last two dimensions of matrices.
---@param options? { transpose_a?: boolean, transpose_b?: boolean }
function M.matmul(a, b, options)
  op.expect("matmul", a)
  op.expect("matmul", b)
  local o = op.options("matmul", options, { transpose_a = false, transpose_b = false })
  if #a.shape == 1 or #b.shape == 1 then return with_vector(a, b, o) end
  local transpose_a, transpose_b = o.transpose_a and 1 or 0, o.transpose_b and 1 or 0
  a, transpose_a = untransposed(a, transpose_a)
  b, transpose_b = untransposed(b, transpose_b)
  return product(a, b, transpose_a, transpose_b)
end

--- x [...,I] times weight [O,I] transposed, plus bias [O]. Options: activation, by name.
---@param options? { activation?: perigee.Activation }
function M.linear(x, weight, bias, options)
  op.expect("linear", x)
  op.expect("linear", weight)
  local o = op.options("linear", options, { activation = false })
  if o.activation and not activations.number[o.activation] then
    fail("linear: unknown activation '%s'; expected %s", tostring(o.activation), activations.text)
  end
  if #weight.shape ~= 2 or #x.shape == 0 or x.shape[#x.shape] ~= weight.shape[2] then
    fail("linear: x is %s, weight is %s; weight must be [out,in] with x's last dimension as in", text(x.shape),
      text(weight.shape))
  end
  local rows = #x.shape == 1 and ops.reshape(x, { 1, x.shape[1] }) or x
  local activation = activations.number[o.activation] or NONE
  local y = matmul(rows, weight, bias, nil, { transpose_a = 0, transpose_b = 1, activation = activation })
  return #x.shape == 1 and ops.reshape(y, { weight.shape[1] }) or y
end

M.mm, M.bmm, M.mv, M.dot = M.matmul, M.matmul, M.matmul, M.matmul -- PyTorch's names for its cases
M.methods = { matmul = M.matmul, mm = M.matmul, bmm = M.matmul, mv = M.matmul, dot = M.matmul }
return M
