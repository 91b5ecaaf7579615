--- Differences between configurations.
local json = require "perigee.io.json"
local tables = require "perigee.base.tables"

local M = {}

--- A list of tables with names (stages, losses) as a table by name; another list as it is.
local function by_name(value)
  if not json.is_array(value) then return value end
  local named = {}
  for _, entry in ipairs(value) do
    if type(entry) ~= "table" or type(entry.name) ~= "string" or named[entry.name] then return nil end
    named[entry.name] = {}
    for key, field in pairs(entry) do
      if key ~= "name" then named[entry.name][key] = field end
    end
  end
  return #value > 0 and named or nil
end

--- A setting's fields; nil where it is a plain value or a list of such.
local function fields(value)
  if type(value) ~= "table" or value == json.null then return nil end
  return by_name(value)
end

local function text(value)
  if type(value) == "number" then return ("%.9g"):format(value) end
  if type(value) ~= "table" or value == json.null then return tostring(value) end
  local parts = {}
  for k, element in ipairs(value) do parts[k] = text(element) end
  return #parts > 0 and "[" .. table.concat(parts, ", ") .. "]" or json.encode(value)
end

local function same(values, count)
  for k = 2, count do
    if json.encode { values[k] } ~= json.encode { values[1] } then return false end
  end
  return true
end

--- Those of the values that are there.
local function present(values, count)
  local list = {}
  for k = 1, count do
    if values[k] ~= nil then list[#list + 1] = values[k] end
  end
  return list
end

local walk

--- Compares tables: one row where some runs lack it as a whole, and rows for what differs among those that have it.
local function walk_fields(rows, name, values, count)
  local there = present(values, count)
  if #there < count then
    local row = { name = name }
    for k = 1, count do row[k] = values[k] ~= nil and "yes" or "-" end
    rows[#rows + 1] = row
    if same(there, #there) then return end
  end
  local of = {}
  for k = 1, count do of[k] = values[k] ~= nil and fields(values[k]) or {} end
  for _, key in ipairs(tables.sorted_keys(tables.merged(unpack(of)))) do
    local inner, differs = {}, {}
    for k = 1, count do inner[k] = of[k][key] end
    for k = 1, count do
      if values[k] ~= nil then differs[#differs + 1] = inner[k] == nil and json.null or inner[k] end
    end
    if not same(differs, #differs) then walk(rows, name == "" and key or name .. "." .. key, inner, count) end
  end
end

--- Adds rows for a setting that is not the same in all runs.
function walk(rows, name, values, count)
  local there = present(values, count)
  local all_fields = #there > 0
  for _, value in ipairs(there) do all_fields = all_fields and fields(value) ~= nil end
  if all_fields then return walk_fields(rows, name, values, count) end
  local row = { name = name }
  for k = 1, count do row[k] = values[k] == nil and "-" or text(values[k]) end
  rows[#rows + 1] = row
end

--- Rows { name =, one text a run } of the settings that are not the same in all; "-" where a run lacks one.
---@param configs table[]   decoded config.json
---@return table[]
function M.rows(configs)
  local rows = {}
  walk_fields(rows, "", configs, #configs)
  return rows
end

return M
