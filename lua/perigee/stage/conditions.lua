--- A student's inputs after x_t and t: fields of the batch, which the model declares as its `inputs`.
---
---   self.inputs = { "labels", { "text", shape = { 77, 768 }, null = self.no_text, drop = 0.1 }, "position" }
---   function Model:forward(x, t, labels, text, position) ... end
---
--- Without the declaration they are { "labels" }. Floating-point fields come in the program's dtype, others as they
--- are stored. An input with a `null` may be absent: training replaces it by that in a share `drop` of the samples,
--- guidance in its second evaluation. Labels have `null_label` and `drop_labels` for that. Each sample draws one
--- number, for the purpose "label drop", which decides for all of its inputs: those of equal shares are dropped
--- together, as guidance has them.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local dtypes = require "perigee.core.dtype"
local layout = require "perigee.core.layout"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"

local M = {}

---@class perigee.Input
---@field [1] string         the field's name
---@field shape? integer[]   of one sample; else what the data set has
---@field dtype? string      as it is stored; else what the data set has
---@field null? number|perigee.Tensor  what stands for an absent value: a tensor that stretches to `shape`, which may be
---  a parameter or a buffer
---@field drop? number       share of the samples that training drops: 0.1 where there is a null

---@class perigee.Condition
---@field name string
---@field shape? integer[]
---@field dtype? string
---@field null? number|perigee.Tensor
---@field drop number

local LABELS = { "labels" }
local DROP = 0.1

--- "the student 'mixer'"
local function called(student) return ("the student '%s'"):format(student.name or student.class_name or "?") end

--- One entry of the declaration in full.
---@param given perigee.Input
---@return perigee.Condition
local function condition_of(what, given)
  local named = tables.copy(given)
  named[1] = nil
  if given[1] == "labels" and next(named) then
    core.fail("%s: labels take no options here; `null_label` and `drop_labels` are theirs", what)
  end
  local o = check.options(what, named, {
    shape = { "counts" }, dtype = { "string" }, null = { "number|tensor" }, drop = { "fraction" },
  })
  if o.drop and o.null == nil then
    core.fail("%s: drop = %g needs a `null`: what stands for the value that is dropped", what, o.drop)
  end
  return { name = given[1], shape = o.shape, dtype = o.dtype and dtypes.named(o.dtype, what), null = o.null,
    drop = o.null ~= nil and (o.drop or DROP) or 0 }
end

--- The inputs that a student declares, in order.
---@return perigee.Condition[]
function M.of(student)
  local inputs, list, seen = student.inputs or LABELS, {}, {}
  if type(inputs) ~= "table" then
    core.fail("%s: inputs is a %s; expected a list such as { \"labels\", \"text\" }", called(student), type(inputs))
  end
  for k, given in ipairs(inputs) do
    local name = type(given) == "table" and given[1] or given
    if type(name) ~= "string" then
      core.fail("%s: inputs[%d] is a %s; expected a field's name or { \"text\", shape = { 77, 768 }, null = 0 }",
        called(student), k, type(given))
    end
    if seen[name] then core.fail("%s: inputs lists '%s' twice", called(student), name) end
    seen[name] = true
    list[k] = condition_of(("%s: inputs[%d], '%s'"):format(called(student), k, name),
      type(given) == "table" and given or { name })
  end
  return list
end

-- ---- against the data -------------------------------------------------------------------------------------------

local function names_of(fields)
  local names = {}
  for k, field in ipairs(fields) do names[k] = field.name end
  return #names > 0 and table.concat(names, ", ") or "none"
end

local function expect_null(student, condition)
  local null, shape = condition.null, condition.shape
  if type(null) == "number" then
    if not core.is_floating[condition.dtype] and null % 1 ~= 0 then
      core.fail("%s: the null of '%s' is %g; its values are %s", called(student), condition.name, null, condition.dtype)
    end
  elseif null then
    local stretched = layout.broadcast(null.shape, shape)
    if not stretched or not layout.same_shape(stretched, shape) then
      core.fail("%s: the null of '%s' is %s; expected %s, one sample's", called(student), condition.name,
        core.shape_text(null.shape), core.shape_text(shape))
    end
  end
end

--- The same with shapes and dtypes, which are the data set's: an error where it hasn't the field, or another one.
---@param data perigee.Dataset
---@return perigee.Condition[]
function M.resolve(student, data)
  local list, fields = M.of(student), {}
  for _, field in ipairs(data:fields()) do fields[field.name] = field end
  for _, condition in ipairs(list) do
    local field = fields[condition.name]
    if not field then
      core.fail("%s takes the field '%s', which the data set '%s' does not have; it has %s", called(student),
        condition.name, data.name, names_of(data:fields()))
    end
    if condition.shape and not layout.same_shape(condition.shape, field.shape) then
      core.fail("%s takes '%s' of %s a sample, the data set '%s' has %s", called(student), condition.name,
        core.shape_text(condition.shape), data.name, core.shape_text(field.shape))
    end
    if condition.dtype and condition.dtype ~= field.dtype then
      core.fail("%s takes '%s' as %s, the data set '%s' has %s", called(student), condition.name, condition.dtype,
        data.name, field.dtype)
    end
    condition.shape, condition.dtype = field.shape, field.dtype
    expect_null(student, condition)
  end
  return list
end

--- The dtype in which a student gets a stored value, in a program of `dtype`.
function M.seen_as(stored, dtype) return core.is_floating[stored] and dtype or stored end

-- ---- in a program -----------------------------------------------------------------------------------------------

--- [B] -> [B,1,...], of as many dimensions as `value` has.
local function as_wide(mask, value)
  local shape = { mask.shape[1] }
  for k = 2, #value.shape do shape[k] = 1 end
  return mask:reshape(shape)
end

--- A value with a share of its samples replaced by what stands for none.
---@param draw fun(): perigee.Value  uniform numbers [B]
local function dropped(condition, value, draw)
  if condition.drop == 0 then return value end
  local mask, null = as_wide(ops.less(draw(), condition.drop), value), condition.null
  if type(null) ~= "number" then null = ops.cast(null, value.dtype) end
  return ops.where(mask, null, value)
end

--- The values that the student is called with, in the order of its inputs, for the batch of a step's context.
---@param context perigee.Context  `drop_labels`: some samples' values are dropped
---@return table<integer, perigee.Value> values, integer count
function M.values(context)
  local student, values, number = context.student, {}, nil
  local list = M.of(student)
  for k, condition in ipairs(list) do
    if condition.name == "labels" then
      values[k] = context.labels
      if context.drop_labels and student.drop_labels then
        values[k] = student:drop_labels(context.labels, context.state)
      end
    else
      local value = context.batch[condition.name]
        or core.fail("%s takes the field '%s', which the batch does not have; it has %s", called(student),
          condition.name, table.concat(tables.sorted_keys(context.batch), ", "))
      value = value:to(M.seen_as(value.dtype, context.dtype))
      local function draw()
        number = number or ops.random_uniform({ value.shape[1] },
          { state = context.state, purpose = "label drop", dtype = "float32" })
        return number
      end
      values[k] = context.drop_labels and dropped(condition, value, draw) or value
    end
  end
  return values, #list
end

-- ---- for samples ------------------------------------------------------------------------------------------------

--- The values of `count` samples without their conditions, by name: nulls where inputs have them, else
--- the values themselves. Nil where no input has a null.
---@param list perigee.Condition[]  of M.resolve
---@param values table<string, perigee.Tensor>  by name
---@param captures? table<perigee.Tensor, perigee.Tensor>  what stands for the student's parameters
---@return table<string, perigee.Tensor>?
function M.nulls(student, list, values, captures)
  local nulls, any = {}, false
  for _, condition in ipairs(list) do
    local name, value, null = condition.name, values[condition.name], condition.null
    nulls[name] = value
    if name == "labels" then null = student.null_label end
    if type(null) == "number" then
      nulls[name], any = ops.fill(value.shape, { value = null, dtype = value.dtype }), true
    elseif null then
      local held = (captures and captures[null] or null):to("cpu"):to(value.dtype)
      nulls[name], any = held:expand(value.shape):contiguous(), true
    end
  end
  return any and nulls or nil
end

--- How guidance's second evaluation can do without the conditions, checked: an error that begins with `what` and the
--- scale `cfg` where no input has a null, or one that has is never dropped in training.
function M.expect_guidance(what, student, cfg)
  local list, guided = M.of(student), false
  for _, condition in ipairs(list) do
    if condition.name == "labels" and student.null_label and student.drop_labels then
      guided = true
      if student.drop_label == 0 then
        core.fail("%s: cfg = %g, but the student's drop_label is 0, so its null label is never trained; use "
          .. "drop_label = 0.1, or cfg = 1", what, cfg)
      end
    elseif condition.null ~= nil then
      guided = true
      if condition.drop == 0 then
        core.fail("%s: cfg = %g, but the student's input '%s' has drop = 0, so its null is never trained; use "
          .. "drop = 0.1, or cfg = 1", what, cfg, condition.name)
      end
    end
  end
  if guided then return end
  if #list == 1 and list[1].name == "labels" then
    core.fail("%s: cfg = %g, but the student has no null label; guidance needs `null_label` and `drop_labels`", what,
      cfg)
  end
  core.fail("%s: cfg = %g, but none of the student's inputs has a `null`; guidance needs one, such as inputs = "
    .. "{ { \"text\", null = 0 } }", what, cfg)
end

return M
