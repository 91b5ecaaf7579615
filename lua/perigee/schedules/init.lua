--- Schedules: numbers that change from step to step. A loss's weight, a learning rate or the decay of the moving
--- averages may be one: `{ pg.schedule.linear { from = 0.5, to = 0, finish = 20000 }, features }`. It depends on
--- the step alone, so a resumed run continues it by itself.
---
--- pg.schedule.NAME is made of what lua/perigee/schedules/NAME.lua returns: a function from options to a schedule's
--- fields.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"
local tables = require "perigee.base.tables"

---@class perigee.schedules
local M = {}

---@class perigee.Schedule
---@field kind string       its file: pg.schedule.KIND
---@field options table     numbers and lists of them, with which it can be made again
---@field text string       "linear 0.5 to 0, steps 0 to 20000"
---@field ends number[]     its least and greatest values
---@field at fun(self: perigee.Schedule, step: integer): number  its value at a step, which counts from 1
local Schedule = {}
Schedule.__index = Schedule
function M.is_schedule(x) return getmetatable(x) == Schedule end

function Schedule:__tostring() return self.text end

local function make(kind, define)
  return function(options)
    local schedule = define(options)
    schedule.kind = kind
    return setmetatable(schedule, Schedule)
  end
end

-- ---- numbers that may be schedules ------------------------------------------------------------------------------

--- Checks a number, or both ends of a schedule, by a rule of core/check.lua; `what` names it in the error.
---@param x number|perigee.Schedule
---@return number|perigee.Schedule
function M.check(what, x, rule)
  if not M.is_schedule(x) then return check.value(what, x, rule) end
  for _, value in ipairs(x.ends) do check.value(("%s (%s)"):format(what, x.text), value, rule) end
  return x
end

--- check.options, where the option `name` may be a schedule too.
---@param given table
---@param spec table<string, table>
---@param name string
---@return table
function M.options(what, given, spec, name)
  local schedule = type(given) == "table" and given[name]
  if not M.is_schedule(schedule) then return check.options(what, given, spec) end
  M.check(("%s: %s"):format(what, name), schedule, spec[name])
  local o = check.options(what, tables.merged(given, { [name] = schedule.ends[1] }), spec)
  o[name] = schedule
  return o
end

--- The number at a step, which counts from 1.
---@param x number|perigee.Schedule
---@param step integer
---@return number
function M.value(x, step) return M.is_schedule(x) and x:at(step) or x end

--- A number, or a schedule in words.
---@param x number|perigee.Schedule
---@return string
function M.text(x) return M.is_schedule(x) and x.text or ("%g"):format(x) end

--- As plain data, for logs and checkpoints: any value but a schedule as it is; a schedule as { schedule = KIND,
--- options = {...} }.
function M.plain(x) return M.is_schedule(x) and { schedule = x.kind, options = tables.copy(x.options) } or x end

--- The value of which M.plain made this.
function M.of(x)
  if type(x) ~= "table" or not x.schedule then return x end
  return M[x.schedule](x.options)
end

local function each(settings, f)
  local result = {}
  for key, value in pairs(settings) do result[key] = f(value) end
  return result
end

--- M.plain and M.of of every value in a table.
---@param settings table<string, any>
function M.plain_all(settings) return each(settings, M.plain) end
function M.of_all(settings) return each(settings, M.of) end

-- ---- between two values -----------------------------------------------------------------------------------------

---@class perigee.RampOptions
---@field from number       the value up to step `begin`
---@field to number         the value from step `finish` on
---@field begin? integer    0
---@field finish integer

--- The fields of a schedule that goes from one value to another; `f(from, to, u)` is its value at the share u of the
--- way, between 0 and 1.
---@param kind string
---@param options perigee.RampOptions
---@param f fun(from: number, to: number, u: number): number
function M.ramp(kind, options, f)
  local what = "schedule." .. kind
  local o = check.options(what, options,
    { from = { "number", finite = true }, to = { "number", finite = true }, begin = { "natural", 0 },
      finish = "count" })
  for _, name in ipairs { "from", "to" } do
    if o[name] == nil then core.fail("%s: option '%s' is missing", what, name) end
  end
  if o.finish <= o.begin then
    core.fail("%s: it begins at step %d and finishes at step %d; expected begin < finish", what, o.begin, o.finish)
  end
  return {
    options = o, ends = { math.min(o.from, o.to), math.max(o.from, o.to) },
    text = ("%s %g to %g, steps %d to %d"):format(kind, o.from, o.to, o.begin, o.finish),
    at = function(_, step)
      local u = (step - o.begin) / (o.finish - o.begin)
      if u <= 0 then return o.from end
      if u >= 1 then return o.to end
      return f(o.from, o.to, u)
    end,
  }
end

return room.open({ module = "perigee.schedules", what = "schedule", make = make }, M)
