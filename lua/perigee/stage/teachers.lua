--- The teachers of a recipe: one, `teacher = MODEL`, or several by name, `teachers = { dino = MODEL, clip = MODEL }`,
--- among which each loss says its own: `teacher = "clip"`.
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"
local tables = require "perigee.base.tables"

---@class perigee.RecipeTeacher
---@field name string    "teacher" where there is one
---@field source perigee.Vit|perigee.Recipe  as the recipe has it
---@field model perigee.Vit  it, or the student of the recipe that it is

local M = {}

local function entry_of(name, source, is_recipe)
  return { name = name, source = source, model = is_recipe(source) and source.student or source }
end

--- The list out of a recipe's options, in the order of the names.
---@param o { teacher?: table, teachers?: table }
---@param is_recipe fun(x: any): boolean
---@return perigee.RecipeTeacher[]
function M.of(o, is_recipe)
  if o.teacher and o.teachers then
    core.fail "recipe: it has both 'teacher' and 'teachers'; name all in teachers = { dino = ..., clip = ... }"
  end
  if o.teacher then return { entry_of("teacher", o.teacher, is_recipe) } end
  local list = {}
  for k, name in ipairs(tables.sorted_keys(o.teachers or {})) do
    if type(name) ~= "string" or not name:match "^[%a_][%w_]*$" then
      core.fail("recipe: teachers has %s; expected names of letters, digits and '_': teachers = { dino = ... }",
        type(name) == "string" and "the name '" .. name .. "'" or "an entry without a name")
    end
    if type(o.teachers[name]) ~= "table" then
      core.fail("recipe: teachers.%s is a %s; expected an encoder, such as pg.models.clip_vit_b_16 {}, or a recipe",
        name, type(o.teachers[name]))
    end
    list[k] = entry_of(name, o.teachers[name], is_recipe)
  end
  if o.teachers and not list[1] then core.fail "recipe: teachers is empty" end
  return list
end

--- The names as text: "clip, dino".
---@param teachers perigee.RecipeTeacher[]
function M.names(teachers)
  local names = {}
  for k, entry in ipairs(teachers) do names[k] = entry.name end
  return table.concat(names, ", ")
end

--- The teacher of a name; where none is said, the only one. An error, which begins with `what`, if there is none.
---@param teachers perigee.RecipeTeacher[]
---@param name? string
---@param what string
---@return perigee.RecipeTeacher
function M.find(teachers, name, what)
  if not teachers[1] then core.fail("%s: it needs a teacher, and the recipe names none", what) end
  if not name and teachers[2] then
    core.fail("%s: the recipe has several teachers; say which with teacher = NAME, one of %s", what, M.names(teachers))
  elseif not name then return teachers[1] end
  local names = {}
  for k, entry in ipairs(teachers) do
    if entry.name == name then return entry end
    names[k] = entry.name
  end
  if teachers[1].name == "teacher" and not teachers[2] then
    core.fail("%s: it names the teacher '%s', and the recipe has one without a name; write teachers = { %s = ... }",
      what, name, name)
  end
  core.fail("%s: unknown teacher '%s'; expected one of %s%s", what, name, M.names(teachers), nearest.hint(name, names))
end

--- Those that a loss reads: its own, the only one, or, of a loss of the recipe's own that does not say, all.
---@param loss perigee.Loss
---@return perigee.RecipeTeacher[]
function M.of_loss(teachers, loss)
  if not loss.needs_teacher then return {} end
  if loss.kind == "custom" and not loss.teacher and teachers[2] then return teachers end
  return { M.find(teachers, loss.teacher, ("loss '%s'"):format(loss.name)) }
end

--- Those that the losses of a stage read, in the recipe's order.
---@param stage { losses: { loss: perigee.Loss }[] }
---@return perigee.RecipeTeacher[]
function M.of_stage(teachers, stage)
  local read, list = {}, {}
  for _, entry in ipairs(stage.losses) do
    for _, one in ipairs(M.of_loss(teachers, entry.loss)) do read[one] = true end
  end
  for _, one in ipairs(teachers) do
    if read[one] then list[#list + 1] = one end
  end
  return list
end

return M
