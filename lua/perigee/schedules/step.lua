--- Constant values, one after the other: values[1] before step at[1], values[2] from step at[1] on, and so forth.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.StepScheduleOptions
---@field values number[]
---@field at integer[]     rising; one less than values

---@class perigee.schedules
---@field step fun(options: perigee.StepScheduleOptions): perigee.Schedule

---@param options perigee.StepScheduleOptions
---@return perigee.Schedule
return function(options)
  local o = check.options("schedule.step", options, { values = "numbers", at = "counts" })
  if #o.values ~= #o.at + 1 then
    core.fail("schedule.step: %d values and %d steps; expected one value more than steps", #o.values, #o.at)
  end
  local text, low, high = { ("%g"):format(o.values[1]) }, math.huge, -math.huge
  for k, step in ipairs(o.at) do
    if k > 1 and step <= o.at[k - 1] then
      core.fail("schedule.step: at = { ..., %d, %d, ... }; expected rising steps", o.at[k - 1], step)
    end
    text[k + 1] = ("%g from step %d"):format(o.values[k + 1], step)
  end
  for _, value in ipairs(o.values) do low, high = math.min(low, value), math.max(high, value) end
  return {
    options = o, ends = { low, high }, text = "step " .. table.concat(text, ", "),
    at = function(_, step)
      local k = 1
      while o.at[k] and step >= o.at[k] do k = k + 1 end
      return o.values[k]
    end,
  }
end
