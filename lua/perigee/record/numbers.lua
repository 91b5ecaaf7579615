--- The numbers of a log's events under their names, one for all that draws curves:
---
---   loss.denoise                       the losses of `step` events
---   step.gradient_norm                 what else they hold
---   signal.gradient_angle.cosine[2]    a signal's value, or its parts
---   EVENT.NAME.FIELD                   the numbers of any other event; NAME where it has a `name`
local json = require "perigee.io.json"
local tables = require "perigee.base.tables"

local M = {}

local NO_CURVES = { start = true, resume = true, fork = true } -- what they say is said once

local function is_numbers(x) return type(x) == "table" and json.is_array(x) and type(x[1]) == "number" end

--- A list's elements, called by the times they belong to where those are given.
local function each_of_list(name, list, times, take)
  for k, number in ipairs(list) do
    local told = is_numbers(times) and #times == #list and ("t = %g"):format(times[k]) or ("[%d]"):format(k)
    take(("%s[%d]"):format(name, k), type(number) == "number" and number or nil, name, k, told)
  end
end

--- The numbers of an event's fields, and of the tables in them.
local function each_of_fields(name, fields, take)
  for _, key in ipairs(tables.sorted_keys(fields)) do
    local value = fields[key]
    local whole = key == "value" and name or name .. "." .. tostring(key)
    if type(value) == "number" then take(whole, value)
    elseif is_numbers(value) then
      if key ~= "time" then each_of_list(whole, value, fields.time, take) end
    elseif type(value) == "table" and value ~= json.null then each_of_fields(whole, value, take) end
  end
end

--- Calls take(name, number) for each number of an event; for an element of a list take(name, number or nil, the list's
--- name, its place, what it is called).
---@param event table
---@param take fun(name: string, number?: number, list?: string, place?: integer, called?: string)
function M.each(event, take)
  if NO_CURVES[event.event] then return end
  local name, values = event.name or event.path, {}
  for key, value in pairs(event) do
    if key ~= "step" then values[key] = value end
  end
  if event.event == "step" then
    if type(values.losses) == "table" then each_of_fields("loss", values.losses, take) end
    values.losses, values.steps = nil, nil
  end
  each_of_fields(type(name) == "string" and event.event .. "." .. name or event.event, values, take)
end

return M
