--- What losses, signals and samplers ask of a student besides its forward pass: the contract, in one place. A loss
--- names the fields that it reads (`asks`); they are checked when a recipe is built (docs/recipes.md, A model of your
--- own).
local check = require "perigee.core.check"
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local module = require "perigee.nn.module"
local program = require "perigee.core.program"

local M = {}

--- field -> the rule of its value (core/check.lua), and how the docs call it
local FIELDS = {
  channels = { { "count" }, "channels of x" },
  size = { { "counts", length = 2 }, "{ height, width } of x" },
  classes = { { "count" }, "labels are 0 ... classes - 1" },
  grid = { { "counts", length = 2 }, "{ rows, columns } of the tokens that it publishes" },
  width = { { "count" }, "size of a token" },
  depth = { { "count" }, "number of blocks" },
  heads = { { "count" }, "attention heads of a block" },
  classify = { { "function" }, "method (pixels): logits [B,classes]" },
}

--- "the student, a mixer,": how messages call it.
local function called(student) return ("the student, a %s,"):format(student.name or student.class_name) end

--- An error unless this is a model that can be called.
function M.expect_model(student)
  if not module.is_module(student) then
    local class = rawget(student, "class_name")
    core.fail(class and "recipe: the student is the class '%s'; call it to make a model of it"
      or "recipe: the student is a table; expected a model: one of pg.models, or of a class made by nn.class", class)
  end
  if student.forward == module.Module.forward then
    core.fail("%s has no method forward(x, t, y), which returns the velocity at x", called(student))
  end
end

local function takes_labels(student)
  for _, condition in ipairs(conditions.of(student)) do
    if condition.name == "labels" then return true end
  end
  return false
end

--- An error unless the student has these fields; `classes` only where labels are among its inputs.
---@param student perigee.Module
---@param fields string[]
---@param who string  that asks for them: "loss 'features'"
function M.expect(student, fields, who)
  for _, field in ipairs(fields) do
    local rule, words = FIELDS[field][1], FIELDS[field][2]
    local value = student[field]
    if value == nil and (field ~= "classes" or takes_labels(student)) then
      core.fail("%s has no `%s` (%s), which %s asks for", called(student), field, words, who)
    end
    if value ~= nil then
      check.value(("%s: its `%s` (%s)"):format(called(student):sub(1, -2), field, words), value, rule)
    end
  end
end

--- An error unless `prediction` is what a student should return at x.
function M.expect_prediction(student, prediction, x)
  local is_value = program.is_value(prediction)
  if is_value and layout.same_shape(prediction.shape, x.shape) then return end
  core.fail("%s returns %s for x %s; expected a prediction of x's shape", called(student),
    type(prediction) == "table" and not is_value and "a table" or tostring(prediction), core.shape_text(x.shape))
end

return M
