local core = require "perigee.core"
local door = require "perigee.core.ffi"
local plan = require "perigee.core.plan"

local ops = core.ops

-- ---- the oracle: maps written out -------------------------------------------------------------------------------

--- Logits [B,K,N,N] of the given heads (counted from 1), without the first `skip` tokens.
local function logits(x, skip, heads)
  local tokens = x.shape[2] - skip
  local function side(which, place)
    local all, list = ops.select(ops.narrow(x, 2, skip + 1, tokens), 3, which), {}
    for k, h in ipairs(heads) do list[k] = ops.select(all, 3, h) end
    return ops.unsqueeze(ops.stack(list, 2), place)
  end
  return ops.sum(side(1, 4) * side(2, 3), 5) * (1 / math.sqrt(x.shape[5]))
end

local function reference(skip, student_heads, teacher_heads)
  return function(_, student, teacher)
    local s, t = logits(student, 0, student_heads), logits(teacher, skip, teacher_heads)
    local rows = s.shape[1] * s.shape[2] * s.shape[3]
    return ops.sum(ops.softmax(t, 4) * ops.log_softmax(s, 4)) * (-1 / rows)
  end
end

--- Against the op's own plain composition.
local function plain_case(name, options)
  options.teacher_skip = 2
  return {
    name = "attention_alignment " .. name .. ", its plain composition", op = "attention_alignment",
    run = function(_, s, t) return ops.attention_alignment(s, ops.stop_gradient(t), options) end,
    inputs = { { shape = { 2, 20, 3, 4, 8 } }, { shape = { 2, 22, 3, 3, 6 } } },
    tolerance = { float32 = 1e-5, bfloat16 = 1e-5 },
  }
end

local function case(name, student, teacher, skip, student_heads, teacher_heads, options, more)
  options.teacher_skip = skip
  local made = {
    name = "attention_alignment " .. name,
    run = function(_, s, t) return ops.attention_alignment(s, ops.stop_gradient(t), options) end,
    inputs = { { shape = student }, { shape = teacher } },
    reference = reference(skip, student_heads, teacher_heads),
    gradients = { 1 },
    tolerance = { float32 = 1e-5, bfloat16 = 1e-5 }, -- the loss of bfloat16 maps is float32
    -- tensor cores take each dS_ij in bfloat16, half a unit of 2^-8 off, and add those up: the worst element of a
    -- gradient is off by a few units (seen: 2e-2 where most of the gradient is zero), which a wrong factor exceeds by
    -- far
    gradient_tolerance = { float32 = 2e-5, bfloat16 = 3e-2 },
  }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

-- ---- PyTorch's values -------------------------------------------------------------------------------------------

local fixture_path = door.home .. "/tests/oracle/fixtures/attention_alignment.safetensors"

--- queries and keys [L,B,H,N,d], pair l (from 1), as qkv [B,N,3,H,d] with values 0.
local function packed(q, k, l)
  local function rows(x) return ops.permute(ops.select(x, 1, l), { 1, 3, 2, 4 }) end
  return ops.stack({ rows(q), rows(k), rows(q) * 0 }, 3)
end

local function distance(a, b)
  local difference = ops.sum((a - b) * (a - b)):item()
  return math.sqrt(difference / math.max(ops.sum(b * b):item(), 1e-12))
end

local function fixture_check(name, tolerance)
  return function()
    local tensors, metadata = require("perigee.io.safetensors").load(fixture_path)
    local settings = require("perigee.io.json").decode(metadata.settings)[name]
    local function get(key) return tensors[name .. "." .. key]:to "float32" end
    local q, k, tq, tk = get "q", get "k", get "teacher_q", get "teacher_k"
    local pairs_of_layers = q.shape[1]
    local students, teachers = {}, {}
    for l = 1, pairs_of_layers do students[l], teachers[l] = packed(q, k, l), packed(tq, tk, l) end
    local from, to = settings.student_grid, settings.teacher_grid
    local same = from[1] == to[1] and from[2] == to[2]
    local gradients, loss = core.grad(function(...)
      local sum
      for l, qkv in ipairs { ... } do
        if not same then qkv = ops.resize_tokens(qkv, { from = from, to = to, mode = "bilinear" }) end
        local value = ops.attention_alignment(qkv, teachers[l], { teacher_skip = settings.prefix })
        sum = sum and sum + value or value
      end
      return sum * (1 / pairs_of_layers)
    end, students)
    local expected = get("loss"):item()
    assert(math.abs(loss:item() - expected) <= tolerance * math.abs(expected) + 1e-9,
      ("%s: loss %.9g, PyTorch's is %.9g"):format(name, loss:item(), expected))
    local dq, dk = get "grad_q", get "grad_k"
    for l = 1, pairs_of_layers do
      local apart = distance(gradients[l], packed(dq, dk, l))
      assert(apart <= tolerance, ("%s: gradient of pair %d is %.3g off"):format(name, l, apart))
    end
  end
end

-- ---- inside the attention's backward ----------------------------------------------------------------------------

--- Gradient of sum(attention(1.5·qkv)·weights) + 0.7·alignment, the loss, and the names of the program's ops.
local function trained(dtype, options, fuse, combine, recompute)
  local pg = require "perigee"
  pg.seed(5)
  local function draw(shape) return pg.randn(shape, { dtype = dtype }) end
  local qkv, teacher, weights = draw { 2, 70, 3, 4, 8 }, draw { 2, 73, 3, 3, 10 }, draw { 2, 70, 4, 8 }
  local p = core.program.new "trained"
  local x = p:input("qkv", qkv.shape, dtype)
  local function block()
    local inside = ops.reshape(x * 1.5, qkv.shape)
    return ops.attention(inside), inside
  end
  local attended, inside
  if recompute then attended, inside = p:recompute(block) else attended, inside = block() end
  local loss = ops.attention_alignment(inside, teacher, options)
  local total = combine(ops.sum(attended * weights), loss)
  local gradients = core.gradient(p, { total }, { ops.full_like(total, 1) }, { x })
  local the_plan = plan.build(p, { { name = "loss", value = loss }, { name = "gradient", value = gradients[1] } },
    { fuse = fuse })
  local names = {}
  for _, call in ipairs(the_plan.calls) do names[call.node.definition.name] = true end
  local results = core.executable.new(the_plan, {}):run { qkv = qkv }
  return results.gradient, results.loss, names
end

local function weighted_sum(out, loss) return out + loss * 0.7 end

local function fused_check(options, recompute)
  return function()
    for dtype, tolerance in pairs { float32 = 1e-6, float64 = 1e-14, bfloat16 = 1e-2 } do
      local gradient, loss, names = trained(dtype, options, true, weighted_sum, recompute)
      local expected, expected_loss, expected_names = trained(dtype, options, false, weighted_sum)
      assert(names.attention_aligned_backward and not names.attention_backward and not names.attention_alignment
        and not names.attention_alignment_backward, "the fused program still has the parts")
      assert(expected_names.attention_backward and expected_names.attention_alignment)
      local apart = distance(gradient:to "float64", expected:to "float64")
      assert(apart <= tolerance, ("%s: gradient %.3g apart"):format(dtype, apart))
      local difference = math.abs(loss:item() - expected_loss:item())
      assert(difference <= 1e-6 * expected_loss:item(), ("%s: loss %g apart"):format(dtype, difference))
    end
  end
end

local function bytes_at(threads)
  local before = door.C.pg_threads()
  door.check(door.C.pg_threads_set(threads))
  local gradient, loss = trained("float32", { teacher_skip = 3, heads = 2 }, true, weighted_sum)
  door.check(door.C.pg_threads_set(before))
  local array, n = core.tensor.to_host(gradient)
  return require("ffi").string(array, n * 4) .. loss:item()
end

--- Scratch bytes of the fused kernel, of the loss and of its gradient.
local function scratch(tokens)
  local function build(fuse)
    local p = core.program.new "scratch"
    local qkv = p:input("qkv", { 1, tokens, 3, 2, 64 }, "float32")
    local teacher = p:input("teacher", { 1, tokens + 1, 3, 2, 64 }, "float32")
    local loss = ops.attention_alignment(qkv, teacher, { teacher_skip = 1 })
    local total = loss + ops.sum(ops.attention(qkv))
    local gradients = core.gradient(p, { total }, { ops.full_like(total, 1) }, { qkv })
    local sum = 0
    local outputs = { { name = "loss", value = total }, { name = "gradient", value = gradients[1] } }
    for _, call in ipairs(plan.build(p, outputs, { fuse = fuse }).calls) do sum = sum + call.scratch end
    return sum
  end
  return build(true) + build(false)
end

local function failing(name, message, student, teacher, options)
  return { name = "attention_alignment: " .. name, error = message,
    run = function(_, s, t) return ops.attention_alignment(s, t, options) end,
    inputs = { { shape = student }, { shape = teacher } } }
end

local small, tall = { 1, 4, 3, 2, 4 }, { 1, 5, 3, 2, 4 }

local cases = {
  case("of 1 token", { 2, 1, 3, 2, 8 }, { 2, 1, 3, 2, 8 }, 0, { 1, 2 }, { 1, 2 }, {}),
  case("with more student heads, a class token", { 2, 31, 3, 4, 8 }, { 2, 32, 3, 3, 10 }, 1, { 1, 2, 3 }, { 1, 2, 3 },
    {}),
  case("with more teacher heads, registers", { 2, 33, 3, 2, 24 }, { 2, 38, 3, 5, 6 }, 5, { 1, 2 }, { 1, 2 }, {}),
  case("of 1 head of several", { 1, 65, 3, 2, 8 }, { 1, 65, 3, 2, 72 }, 0, { 1 }, { 1 }, { heads = 1 }),
  case("of mapped heads", { 2, 20, 3, 4, 8 }, { 2, 21, 3, 3, 8 }, 1, { 4, 2 }, { 1, 3 },
    { student_heads = { 4, 2 }, teacher_heads = { 1, 3 } }),
  case("of one teacher head for several", { 1, 12, 3, 3, 8 }, { 1, 12, 3, 2, 8 }, 0, { 1, 2, 3 }, { 2, 2, 1 },
    { teacher_heads = { 2, 2, 1 } }),
  case("of 257 tokens", { 1, 257, 3, 1, 16 }, { 1, 257, 3, 1, 8 }, 0, { 1 }, { 1 }, {}),
  case("with logits beyond ±200", { 1, 40, 3, 2, 8 }, { 1, 40, 3, 2, 8 }, 0, { 1, 2 }, { 1, 2 }, {}, {
    inputs = {
      { shape = { 1, 40, 3, 2, 8 }, range = { -17, 17 } }, { shape = { 1, 40, 3, 2, 8 }, range = { -17, 17 } },
    },
    gradient_tolerance = { float32 = 5e-4, bfloat16 = 3e-2 }, difference_tolerance = 1e-4,
  }),

  plain_case("of the first heads", {}),
  plain_case("of mapped heads", { student_heads = { 4, 2 }, teacher_heads = { 1, 3 } }),

  { name = "attention_alignment inside the attention's backward", check = fused_check { teacher_skip = 3 } },
  { name = "attention_alignment of mapped heads inside the attention's backward",
    check = fused_check { teacher_skip = 3, student_heads = { 4, 2 }, teacher_heads = { 1, 3 } } },
  { name = "attention_alignment inside a recomputed attention's backward",
    check = fused_check({ teacher_skip = 3 }, true) },
  { name = "attention_alignment stays outside where the attention's gradient depends on its value",
    check = function()
      local names = select(3, trained("float32", { teacher_skip = 3 }, true, function(out, loss) return out * loss end))
      assert(names.attention_backward and names.attention_alignment and not names.attention_aligned_backward)
    end },
  { name = "attention_alignment inside the attention's backward has the same bits with more threads",
    check = function()
      local one = bytes_at(1)
      assert(bytes_at(2) == one and bytes_at(3) == one)
    end },
  { name = "attention_alignment's scratch grows linearly with the number of tokens",
    check = function()
      local least, middle, most = scratch(256), scratch(1024), scratch(4096)
      assert(middle <= 4 * least and most <= 4 * middle, ("%d, %d, %d bytes"):format(least, middle, most))
    end },

  failing("unequal grids", "the student has 4 tokens, the teacher 5 of which 0 are skipped", small, tall, {}),
  failing("another number of images", "1 images of the student, 2 of the teacher", small, { 2, 4, 3, 2, 4 }, {}),
  failing("too many heads", "3 heads, where the student has 2 and the teacher 2", small, small, { heads = 3 }),
  failing("a head that is not there", "student head 3; there are 2", small, small, { student_heads = { 3 } }),
  failing("a teacher head that is not there", "teacher head 7; there are 2", small, small, { teacher_heads = { 7 } }),
  failing("a head twice", "student head 1 is in two pairs", small, small, { student_heads = { 1, 1 } }),
  failing("head 0", "heads count from 1", small, small, { student_heads = { 0 } }),
  failing("maps of two lengths", "teacher_heads is int32 [1]; expected int32 [2]", small, small,
    { student_heads = { 1, 2 }, teacher_heads = { 1 } }),
  failing("an unpacked teacher", "the teacher's qkv is [1,4,8]", small, { 1, 4, 8 }, {}),
  failing("an unknown option", "unknown option 'skip'", small, small, { skip = 1 }),
}

for _, name in ipairs {
  "more_student_heads", "more_teacher_heads", "to_smaller_grid", "to_larger_grid", "to_another_shape", "tokens_33",
  "tokens_1",
} do
  cases[#cases + 1] = { name = "attention_alignment as PyTorch has it: " .. name, check = fixture_check(name, 1e-5) }
end
cases[#cases + 1] = { name = "attention_alignment as PyTorch has it: extreme", check = fixture_check("extreme", 1e-4) }
return cases
