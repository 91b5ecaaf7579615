--- Your own loss: `compute(self, context)` returns one number; `modules(self, student, teacher)` what it trains.
local check = require "perigee.core.check"

---@class perigee.CustomLossOptions
---@field name string
---@field compute fun(self: perigee.Loss, context: perigee.Context): perigee.Value  one number
---@field modules? fun(self: perigee.Loss, student: perigee.Module, teacher?: perigee.Module): table<string,
---  perigee.Module>
---@field per_sample? fun(self: perigee.Loss, context: perigee.Context): perigee.Value  [B], for signal.loss_by_time
---@field needs_teacher? boolean  the stage keeps the teacher, or all of several
---@field teacher? string         the stage keeps that one of several
---@field settings? table         for config.json

---@class perigee.losses
---@field custom fun(options: perigee.CustomLossOptions): perigee.Loss

---@param options perigee.CustomLossOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.custom", options, {
    name = "string", compute = "function", modules = { "function" }, needs_teacher = { "boolean", false },
    teacher = { "string" },    settings = { "table", {} }, per_sample = { "function" },
  })
  return { name = o.name, compute = o.compute, code = o.compute, modules = o.modules,
    per_sample = o.per_sample,
    needs_teacher = o.needs_teacher or o.teacher ~= nil, teacher = o.teacher, settings = o.settings }
end
