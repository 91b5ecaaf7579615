--- Attention alignment (HASTE, arXiv 2505.16792): the cross-entropy between a frozen teacher's attention maps and the
--- student's. Neither map is stored; in training, loss and gradient come out of the student's attention backward.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local fail, text = op.fail, op.shape_text

local ints, floats = { "heads", "teacher_skip" }, { "student_scale", "teacher_scale" }

local function attributes_of(n)
  return {
    heads = n.heads, teacher_skip = n.teacher_skip, student_scale = n.student_scale, teacher_scale = n.teacher_scale,
  }
end

--- B·K·N² for K pairs of heads: the size of the maps.
local function map(student, a) return student.shape[1] * a.heads * student.shape[2] ^ 2 end

-- ---- the gradient, alone and inside the attention's backward ----------------------------------------------------

local aligned_backward = op.define {
  name = "attention_aligned_backward",
  part = "student",
  rate_share = 0.6,
  inputs = { "dout", "qkv", "out", "lse", "coefficient", "teacher", "student_heads?", "teacher_heads?" },
  outputs = { "dqkv", "loss" },
  results = 2,
  ints = ints,
  floats = floats,
  instance = function(a) return a.qkv.dtype end,
  shape = function(a) return { { a.qkv.shape, a.qkv.dtype }, { {}, op.stat(a.qkv.dtype) } } end,
  flops = function(a)
    local s = a.qkv.shape
    return 5 * 2 * s[1] * s[4] * s[2] ^ 2 * s[5] + 2 * map(a.qkv, a) * a.teacher.shape[5]
  end,
}

--- The one other value that is added to v, and the node that adds them; nil if v has other readers.
local function added_to(graph, v)
  local adder = graph:only_reader(v)
  if not adder or adder.definition.name ~= "add" then return end
  local other = rawequal(adder.inputs[1], v) and adder.inputs[2] or adder.inputs[1]
  if not rawequal(other, v) and op.same_shape(other.shape, v.shape) then return other, adder end
end

--- Is a the value b, perhaps computed again (a recomputed block's)?
local function same_value(a, b)
  if rawequal(a, b) then return true end
  return a.node and a.node.clone_of and rawequal(a.node.clone_of, b.node) and a.index == b.index
end

local function same_inputs(a, b, names)
  for _, name in ipairs(names) do
    if not rawequal(a[name], b[name]) then return false end
  end
  return true
end

local function same_attributes(a, b)
  for key, value in pairs(attributes_of(a)) do
    if value ~= b[key] then return false end
  end
  return true
end

--- The node that computes the loss whose gradient `node` is.
local function forward_of(graph, node)
  for _, reader in ipairs(graph:readers(node.student)) do
    if reader.definition.name == "attention_alignment" and same_attributes(reader, node)
      and same_inputs(reader, node, { "student", "teacher", "student_heads", "teacher_heads" }) then
      return reader
    end
  end
end

--- attention_backward + attention_alignment_backward of the same qkv, and the alignment's loss, become one node, unless
--- the attention's gradient depends on the loss itself.
local function join_attention(graph, node)
  local attention_gradient, adder = added_to(graph, node.dstudent)
  local attention = attention_gradient and attention_gradient.node
  if not attention or attention.definition.name ~= "attention_backward" or not graph:only_reader(attention_gradient)
    or not same_value(attention.qkv, node.student) or attention.scale ~= node.student_scale then
    return
  end
  local replaces, removed = { [adder.y] = 1 }, { adder, node, attention }
  local forward = forward_of(graph, node)
  if forward then
    if graph:depends_on({ attention.dout, node.coefficient }, forward) then return end
    replaces[forward.loss] = 2
    removed[#removed + 1] = forward
  end
  local inputs = { attention.dout, attention.qkv, attention.out, attention.lse, node.coefficient, node.teacher,
    node.student_heads or false, node.teacher_heads or false }
  graph:rewrite(adder, aligned_backward, inputs, attributes_of(node), replaces, removed)
end

local backward = op.define {
  name = "attention_alignment_backward",
  part = "alignment",
  inputs = { "coefficient", "student", "teacher", "student_heads?", "teacher_heads?" },
  outputs = { "dstudent" },
  ints = ints,
  floats = floats,
  instance = function(a) return a.student.dtype end,
  shape = function(a) return { { a.student.shape, a.student.dtype } } end,
  flops = function(a) return 2 * map(a.student, a) * (3 * a.student.shape[5] + a.teacher.shape[5]) end,
  fusions = { join_attention },
}

-- ---- the loss ---------------------------------------------------------------------------------------------------

local function check_packed(name, x)
  if not op.is_operand(x) then fail("attention_alignment: the %s's qkv is a %s, not a tensor", name, type(x)) end
  local s = x.shape
  if #s ~= 5 or s[3] ~= 3 or op.numel(s) == 0 then
    fail("attention_alignment: the %s's qkv is %s; expected [images,tokens,3,heads,size]", name, text(s))
  end
end

local function check(a)
  local s, t = a.student.shape, a.teacher.shape
  check_packed("student", a.student)
  check_packed("teacher", a.teacher)
  op.expect_one_dtype("attention_alignment", a, { "student", "teacher" })
  if s[1] ~= t[1] then fail("attention_alignment: %d images of the student, %d of the teacher", s[1], t[1]) end
  if a.teacher_skip < 0 or t[2] - a.teacher_skip ~= s[2] then
    fail("attention_alignment: the student has %d tokens, the teacher %d of which %d are skipped; on unequal grids "
      .. "resample the student's qkv first (ops.resize_tokens)", s[2], t[2], a.teacher_skip)
  end
  if a.heads < 1 or a.heads > s[4] or (not a.teacher_heads and a.heads > t[4]) then
    fail("attention_alignment: %d heads, where the student has %d and the teacher %d", a.heads, s[4], t[4])
  end
  for _, name in ipairs { "student_heads", "teacher_heads" } do
    local list = a[name]
    if list and (list.dtype ~= "int32" or #list.shape ~= 1 or list.shape[1] ~= a.heads) then
      fail("attention_alignment: %s is %s %s; expected int32 [%d]", name, list.dtype, text(list.shape), a.heads)
    end
  end
end

--- Logits [B,K,N,N] of the heads in question.
local function logits(x, skip, heads, count, scale)
  local tokens = x.shape[2] - skip
  local function side(which)
    local part = ops.permute(ops.select(ops.narrow(x, 2, skip + 1, tokens), 3, which), { 1, 3, 2, 4 })
    if not heads then return ops.narrow(part, 2, 1, count) end
    local index = ops.expand(ops.reshape(heads, { 1, count, 1, 1 }), { x.shape[1], count, tokens, x.shape[5] })
    return ops.gather(part, 2, index)
  end
  return ops.matmul(side(1), ops.transpose(side(2))) * scale
end

local attention_alignment = op.define {
  name = "attention_alignment",
  part = "alignment",
  inputs = { "student", "teacher", "student_heads?", "teacher_heads?" },
  outputs = { "loss" },
  ints = ints,
  floats = floats,
  instance = function(a) return a.student.dtype end,
  shape = function(a)
    check(a)
    return { { {}, op.stat(a.student.dtype) } }
  end,
  vjp = function(n, dloss)
    if n:needs "teacher" then fail "attention_alignment: no gradient reaches the teacher; use ops.stop_gradient" end
    return { student = backward(dloss, n.student, n.teacher, n.student_heads, n.teacher_heads, attributes_of(n)) }
  end,
  plain = function(a)
    local s = logits(a.student, 0, a.student_heads, a.heads, a.student_scale)
    local t = logits(a.teacher, a.teacher_skip, a.teacher_heads, a.heads, a.teacher_scale)
    local rows = s.shape[1] * s.shape[2] * s.shape[3]
    return ops.sum(ops.softmax(t, -1) * ops.log_softmax(s, -1)) * (-1 / rows)
  end,
  flops = function(a) return 2 * map(a.student, a) * (a.student.shape[5] + a.teacher.shape[5]) end,
}

--- A head map as the kernels read it: a list of heads counted from 1, of the `count` that the student or the teacher
--- has, becomes an int32 tensor counted from 0, where x is; a program brings it to its own device.
local function head_map(whose, heads, count, x)
  if not heads or op.is_operand(heads) then return heads end
  if type(heads) ~= "table" or #heads == 0 then fail("attention_alignment: %s_heads is not a list of heads", whose) end
  local from_zero, seen = {}, {}
  for k, h in ipairs(heads) do
    if type(h) ~= "number" or h < 1 or h % 1 ~= 0 then
      fail("attention_alignment: %s_heads names head %s; heads count from 1", whose, tostring(h))
    end
    if h > count then fail("attention_alignment: %s head %d; there are %d", whose, h, count) end
    if whose == "student" and seen[h] then fail("attention_alignment: student head %d is in two pairs", h) end
    from_zero[k], seen[h] = h - 1, true
  end
  local list = tensor.tensor(from_zero, "int32")
  return tensor.is_tensor(x) and x.device ~= "meta" and list:to(x.device) or list
end

local defaults = { heads = false, teacher_skip = 0, student_heads = false, teacher_heads = false, student_scale = false,
  teacher_scale = false }

return {
  --- Mean over images, pairs of heads and query rows of −Σ_j softmax(T)_ij·log softmax(S)_ij, S and T the logits of the
  --- packed student [B,N,3,H,d] and teacher [B,skip + N,3,H',d'].
  ---@param options? table  heads: how many, the first of each (default: as many as both have); teacher_skip: class and
  --- register tokens in front (default 0); student_heads, teacher_heads: which go together, lists counted from 1 or
  --- int32 tensors counted from 0; student_scale, teacher_scale: of the logits (default 1/sqrt of the head size)
  attention_alignment = function(student, teacher, options)
    local o = op.options("attention_alignment", options, defaults)
    check_packed("student", student)
    check_packed("teacher", teacher)
    local student_heads = head_map("student", o.student_heads, student.shape[4], student)
    local teacher_heads = head_map("teacher", o.teacher_heads, teacher.shape[4], student)
    local a_map = student_heads or teacher_heads
    return attention_alignment(student, teacher, student_heads, teacher_heads, {
      heads = o.heads or (a_map and a_map.shape[1]) or math.min(student.shape[4], teacher.shape[4]),
      teacher_skip = o.teacher_skip,
      student_scale = o.student_scale or 1 / math.sqrt(student.shape[5]),
      teacher_scale = o.teacher_scale or 1 / math.sqrt(teacher.shape[5]),
    })
  end,
}
