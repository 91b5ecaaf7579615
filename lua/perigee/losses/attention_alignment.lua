--- Attention alignment (ATTA, HASTE arXiv 2505.16792): mean over layer pairs, images, heads and query rows of −Σ_j
--- softmax(T)_ij · log softmax(S)_ij, S and T the student's and the teacher's logits between patches. The first
--- min(student's, teacher's, `heads`) heads take part unless `head_map = { student = {...}, teacher = {...} }` says
--- which.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local time_weight = require "perigee.stage.time_weight"

---@class perigee.AttentionAlignmentOptions
---@field name? string         "attention"
---@field student integer[]    blocks of the student, from 1 ...
---@field teacher integer[]    ... and the block of the teacher that each follows; { 8, 10, 12, of = "clip" } says which
---                            teacher, where the recipe has several
---@field heads? integer       the first so many of each: as many as both have
---@field head_map? { student: integer[], teacher: integer[] }  which heads go together, in place of `heads`
---@field time_weight? fun(t: perigee.Value): perigee.Value  weights of the samples by their times
---  (stage/time_weight.lua); the loss is then not joined with the attention's backward pass, which costs time

---@class perigee.losses
---@field attention_alignment fun(options: perigee.AttentionAlignmentOptions): perigee.Loss

--- Two lists that go in pairs: `what` names their items.
local function check_pairs(o, lists, verb, what)
  if #lists.student ~= #lists.teacher or #lists.student == 0 then
    core.fail("loss '%s': %s%d student %s and %d teacher %s; they go in pairs", o.name, verb, #lists.student, what,
      #lists.teacher, what)
  end
end

local function check_blocks(o, student, teacher)
  for k = 1, #o.student do
    if o.student[k] > student.depth or o.teacher[k] > teacher.depth then
      core.fail("loss '%s': student block %d to teacher block %d, of %d and %d", o.name, o.student[k], o.teacher[k],
        student.depth, teacher.depth)
    end
  end
end

local function check_heads(o, student, teacher)
  for side, model in pairs { student = student, teacher = teacher } do
    for _, head in ipairs(o.head_map and o.head_map[side] or {}) do
      if head > model.heads then
        core.fail("loss '%s': head_map names head %d of the %s, which has %d", o.name, head, side, model.heads)
      end
    end
  end
  if o.heads and (o.heads > student.heads or o.heads > teacher.heads) then
    core.fail("loss '%s': %d heads, where the student has %d and the teacher %d", o.name, o.heads,
      student.heads, teacher.heads)
  end
end

--- The mean entropy of the teacher's maps: its cross-entropy with itself, below which the loss can't fall.
local function entropy(self, context, o)
  local sum
  for _, pair in ipairs(self.pairs) do
    local theirs, skip = context:teacher_attention(pair.teacher, o.teacher.of)
    local attributes = { teacher_skip = skip }
    if o.head_map then attributes.student_heads, attributes.teacher_heads = o.head_map.teacher, o.head_map.teacher
    else attributes.heads = o.heads or math.min(context.student.heads, context:teacher_model(o.teacher.of).heads) end
    local value = ops.attention_alignment(theirs:narrow(2, skip + 1, theirs.shape[2] - skip), theirs, attributes)
    sum = sum and sum + value or value
  end
  return sum * (1 / #self.pairs)
end

---@param options perigee.AttentionAlignmentOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.attention_alignment", options, {
    name = { "string", "attention" }, student = "counts", teacher = "counts", heads = { "count" },
    head_map = { "table" }, time_weight = { "function" },
  })
  for key, value in pairs(o.teacher) do
    if type(key) ~= "number" and (key ~= "of" or type(value) ~= "string") then
      core.fail("loss '%s': teacher has '%s'; expected blocks and, of several teachers, the name: "
        .. "teacher = { 8, 10, of = \"clip\" }", o.name, tostring(key))
    end
  end
  check_pairs(o, o, "", "blocks")
  if o.head_map then
    local map = check.options(("loss '%s': head_map"):format(o.name), o.head_map,
      { student = "counts", teacher = "counts" })
    check_pairs(o, map, "head_map has ", "heads")
  end
  local blocks = {}
  for k = 1, #o.student do blocks[k] = { student = o.student[k], teacher = o.teacher[k] } end
  return {
    name = o.name, needs_teacher = true, teacher = o.teacher.of, asks = { "depth", "heads", "grid" }, pairs = blocks,
    settings = { student = o.student, teacher = { unpack(o.teacher) }, of = o.teacher.of, heads = o.heads,
      head_map = o.head_map },
    code = o.time_weight,
    validate = function(_, student, teacher)
      check_blocks(o, student, teacher)
      check_heads(o, student, teacher)
    end,
    compute = function(_, context)
      local from, to = context.student.grid, context:teacher_grid(o.teacher.of)
      local attributes, sum = {}, nil
      if o.head_map then attributes.student_heads, attributes.teacher_heads = o.head_map.student, o.head_map.teacher
      else attributes.heads = o.heads or math.min(context.student.heads, context:teacher_model(o.teacher.of).heads) end
      for _, pair in ipairs(blocks) do
        local qkv = ops.resize_tokens(context:tap("qkv of block " .. pair.student), { from = from, to = to })
        qkv = time_weight.apply(o.name, o.time_weight, context, qkv)
        local theirs, skip = context:teacher_attention(pair.teacher, o.teacher.of)
        attributes.teacher_skip = skip
        local value = ops.attention_alignment(qkv, ops.stop_gradient(theirs), attributes)
        sum = sum and sum + value or value
      end
      return sum * (1 / #blocks)
    end,
    progress = function(self, context, value)
      return { cross_entropy = value, teacher_entropy = entropy(self, context, o) }
    end,
  }
end
