--- The part of teachers' forward passes that a cache keeps: values that losses read, by name, and, in a stage's
--- program, the inputs that stand for them. Kept is what the teacher publishes, on its own grid: "patches" [N,D] of an
--- image, the taps that custom losses read, and, of a packed qkv, only what attention alignment reads of it: "queries
--- and keys of block k" [N,2,H,d], without values and without class and register tokens.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local Context = require "perigee.stage.context"

local M = {}

--- The teachers' forward passes alone over `batch` images: their program, and a context to find values in.
function M.trace(recipe, batch)
  local p = core.program.new("teacher")
  for _, entry in ipairs(recipe.teachers) do entry.model:assume_dtype(recipe.dtype) end
  return p, Context.new {
    program = p, student = recipe.student, teachers = recipe.teachers, data = recipe.data, dtype = recipe.dtype,
    batch = Context.inputs(p, recipe.data, batch),
  }
end

--- A value of a teacher's forward pass by name, or nil.
---@param teacher string  its name
function M.value(context, teacher, name)
  local result = context:teacher_features(teacher)
  local block = name:match "^queries and keys of block (%d+)$"
  if name == "patches" then return result.patches end
  if not block then return result.taps[name] end
  local qkv, prefix = result.taps["qkv of block " .. block], context:teacher_model(teacher).prefix
  return qkv and qkv:narrow(2, prefix + 1, qkv.shape[2] - prefix):narrow(3, 1, 2)
end

---@class perigee.TeacherField : perigee.Field
---@field teacher string  whose
---@field tap string      what it is of the teacher's forward pass

--- Inputs of a stage's program in place of its teachers, made as they are asked for.
---@class perigee.TeacherInputs
---@field fields perigee.TeacherField[]
local Inputs = {}
Inputs.__index = Inputs

function M.inputs(recipe, program, batch)
  return setmetatable({ recipe = recipe, program = program, batch = batch, fields = {}, values = {} }, Inputs)
end

--- A teacher's value of that name, in the program's dtype; nil where the teacher has none.
---@param teacher perigee.RecipeTeacher
function Inputs:value(teacher, name)
  local full = (self.recipe.teachers[2] and "teacher " .. teacher.name .. " " or "teacher ") .. name
  if self.values[full] then return self.values[full] end
  self.live = self.live or select(2, M.trace(self.recipe, self.batch)) -- for the shapes
  local like, stored = M.value(self.live, teacher.name, name), self.recipe.cache_teacher.dtype
  if not like then return nil end
  local input = self.program:input(full, like.shape, stored)
  self.fields[#self.fields + 1] = { name = full, teacher = teacher.name, tap = name, dtype = stored,
    shape = { unpack(like.shape, 2) } }
  self.values[full] = input:to(self.recipe.dtype)
  return self.values[full]
end

--- A program that reads inputs in place of a teacher must not hold the teacher itself: its weights will not be there.
function M.check(program, teacher)
  for _, list in ipairs { teacher:named_parameters(), teacher:named_buffers() } do
    for _, entry in ipairs(list) do
      if program.captures[entry.tensor] then
        core_ffi.fail("cache_teacher: a loss runs the teacher itself (it reads its %s); with a cache, losses read "
          .. "context:teacher_features() and context:teacher_attention(block) only", entry.name)
      end
    end
  end
end

return M
