--- The parameters that a recipe trains, checked before anything is computed: every stage is traced and differentiated
--- once, and every parameter that is not frozen must get a gradient in one of them.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local is_frozen = require("perigee.nn.module").is_frozen
local stage_program = require "perigee.stage.program"
local tensor = core.tensor

local M = {}

local MOST_NAMED = 8 -- parameters in a message

--- Whose a parameter or buffer is: { name, module }, by tensor; `module` as Recipe:trained_modules() lists it, or
--- nothing for the teacher's.
local function owners_of(recipe, modules)
  local owners = {}
  for _, m in ipairs(modules) do
    m.module:assume_dtype(recipe.dtype)
    for _, entry in ipairs(m.module:named_parameters()) do
      local name, other = m.name .. "." .. entry.name, owners[entry.tensor]
      if other then
        core_ffi.fail("%s and %s are one parameter, which would be trained twice; a loss reaches the student's modules "
          .. "as context.student, and lists only its own in `modules`", other.name, name)
      end
      owners[entry.tensor] = { name = name, module = m }
    end
    for _, entry in ipairs(m.module:named_buffers()) do
      owners[entry.tensor] = owners[entry.tensor] or { name = m.name .. "." .. entry.name, module = m }
    end
  end
  for _, teacher in ipairs(recipe.teachers) do
    local beginning = recipe.teachers[2] and "teachers." .. teacher.name or teacher.name
    teacher.model:assume_dtype(recipe.dtype)
    for _, list in ipairs { teacher.model:named_parameters(), teacher.model:named_buffers() } do
      for _, entry in ipairs(list) do
        owners[entry.tensor] = owners[entry.tensor] or { name = beginning .. "." .. entry.name, teacher = teacher }
      end
    end
  end
  return owners
end

--- An error unless a loss of the stage says that it needs this teacher.
local function expect_needed(recipe, stage, owner)
  for _, teacher in ipairs(recipe:teachers_of(stage)) do
    if teacher == owner.teacher then return end
  end
  core_ffi.fail("stage '%s' reads %s, and none of its losses says that it needs the teacher; give the loss `%s`",
    stage.name, owner.name, recipe.teachers[2] and ("teacher = \"%s\""):format(owner.teacher.name)
    or "needs_teacher = true")
end

--- Raises an error at the user's line for a parameter that a stage reads and that would not be there, or would stay as
--- it is without anybody having said so.
local function expect_trained(recipe, stage, t, owner)
  local shape = core_ffi.shape_text(t.shape)
  if rawget(t, "role") == "average" then return end
  if not owner and t.device == "meta" then
    core_ffi.fail("this %s %s belongs to no module that is trained: keep the module that has it in a field of the "
      .. "student, or list it in the loss's `modules`", rawget(t, "role") or "tensor", shape)
  elseif not owner and rawget(t, "role") == "parameter" and not is_frozen(t) then
    core_ffi.fail("this parameter %s belongs to no module that is trained: keep its module in a field of the student "
      .. "or list it in the loss's `modules`; or say that it stays as it is, with module:freeze()", shape)
  elseif owner and owner.teacher then expect_needed(recipe, stage, owner)
  elseif owner and owner.module and owner.module.loss then
    for _, entry in ipairs(stage.losses) do
      if entry.name == owner.module.loss then return end
    end
    core_ffi.fail("stage '%s' reads %s, and the loss '%s', which trains that, is not in the stage", stage.name,
      owner.name, owner.module.loss)
  end
end

--- The trained parameters that get a gradient in a stage, added to `reached`.
local function reach(recipe, stage, owners, reached)
  local trace = stage_program.trace(recipe, stage, { batch = recipe.micro, admit = function(t)
    if rawget(t, "role") or t.device == "meta" then expect_trained(recipe, stage, t, owners[t]) end
  end })
  local p, tensors, wrt = trace.program, {}, {}
  for _, m in ipairs(recipe:trained_modules(stage)) do
    for _, entry in ipairs(m.module:named_parameters()) do
      if p.captures[entry.tensor] and not is_frozen(entry.tensor) then
        tensors[#tensors + 1] = entry.tensor
        wrt[#wrt + 1] = p.captures[entry.tensor]
      end
    end
  end
  local one = tensor.tensor(1, {}, trace.total.dtype)
  local any = false
  for k, gradient in ipairs(core.gradient(p, { trace.total }, { one }, wrt)) do
    if gradient then reached[tensors[k]], any = true, true end
  end
  if not any then
    core_ffi.fail("stage '%s' trains nothing: its losses depend on no parameter that is not frozen", stage.name)
  end
end

local function check(recipe)
  local modules, reached = recipe:trained_modules(), {}
  local owners = owners_of(recipe, modules)
  for _, stage in ipairs(recipe.stages) do tensor.tidy(reach, recipe, stage, owners, reached) end
  local lost, first = {}, nil
  for _, m in ipairs(modules) do
    for _, entry in ipairs(m.module:named_parameters()) do
      if not reached[entry.tensor] and not is_frozen(entry.tensor) then
        first = first or entry.name
        lost[#lost + 1] = ("%s.%s %s"):format(m.name, entry.name, core_ffi.shape_text(entry.tensor.shape))
      end
    end
  end
  if #lost == 0 then return end
  local names, it = table.concat(lost, ", ", 1, math.min(#lost, MOST_NAMED)), #lost == 1 and "it" or "them"
  if #lost > MOST_NAMED then names = names .. (" and %d more"):format(#lost - MOST_NAMED) end
  core_ffi.fail("%s would never train: no loss of any stage depends on %s. Use %s in the model, remove %s, or freeze "
    .. "%s: module:freeze \"%s\"", names, it, it, it, it, first)
end

--- An error that names the parameters that no loss of any stage reaches, unless they are frozen; that a stage would
--- read and nobody trains or loads; or that two modules would train. Nothing is computed, and nothing allocated.
---@param recipe perigee.Recipe
function M.check(recipe) core_ffi.at(recipe.place, check, recipe) end

return M
