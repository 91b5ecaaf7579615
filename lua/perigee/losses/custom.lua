--- Your own loss: `compute(self, context)` returns one number; `modules(self, student, teacher)` what it trains.
local check = require "perigee.core.check"

---@class perigee.CustomLossOptions
---@field name string
---@field compute fun(self: perigee.Loss, context: perigee.Context): perigee.Value  one number
---@field modules? fun(self: perigee.Loss, student: perigee.Module, teacher?: perigee.Module): table<string,
---  perigee.Module>
---@field needs_teacher? boolean  the stage keeps the teacher
---@field settings? table         for config.json

---@class perigee.losses
---@field custom fun(options: perigee.CustomLossOptions): perigee.Loss

---@param options perigee.CustomLossOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.custom", options, {
    name = "string", compute = "function", modules = { "function" }, needs_teacher = { "boolean", false },
    settings = { "table", {} },
  })
  return { name = o.name, compute = o.compute, code = o.compute, modules = o.modules,
    needs_teacher = o.needs_teacher, settings = o.settings }
end
