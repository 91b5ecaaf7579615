--- Reading a run's config.json, which may come from elsewhere: the fields that commands read have their types.
local json = require "perigee.io.json"

local M = {}

--- What a field must be: a type, "objects" (a list of them), or the fields of an object. All may be missing.
local FIELDS = {
  options = {}, batch = "number", seed = "number", stages = "objects",
  command = { recipe = {}, command = { device = "string", seed = "number", threads = "number", console = "boolean" } },
}
local STAGE = { name = "string", signals = "objects" }
local SIGNAL, TIMES = { name = "string" }, { from = "number", every = "number" }

local function is_object(value)
  return type(value) == "table" and value ~= json.null and (next(value) == nil or not json.is_array(value))
end

local function check(path, name, value, expected)
  local function fail(kind)
    error(("%s: '%s' is %s; expected %s"):format(path, name, value == json.null and "null" or type(value) == "table"
      and (json.is_array(value) and "a list" or "an object") or "a " .. type(value), kind), 0)
  end
  if type(expected) == "table" then
    if not is_object(value) then fail "an object" end
    for key, inner in pairs(expected) do
      if value[key] ~= nil then check(path, name .. "." .. key, value[key], inner) end
    end
  elseif expected == "objects" then
    if type(value) ~= "table" or value == json.null or not (json.is_array(value) or next(value) == nil) then
      fail "a list of objects"
    end
  elseif type(value) ~= expected then fail("a " .. expected) end
end

local function check_list(path, name, list, fields)
  for k, one in ipairs(list or {}) do check(path, ("%s[%d]"):format(name, k), one, fields) end
end

--- The configuration of the run in a folder; an error where a field that commands read is of another type.
---@param folder string
---@return table
function M.read(folder)
  local path = folder .. "/config.json"
  local config = json.read(path)
  if not is_object(config) then error(("%s is not a run's: expected an object"):format(path), 0) end
  for name, expected in pairs(FIELDS) do
    if config[name] ~= nil then check(path, name, config[name], expected) end
  end
  check_list(path, "stages", config.stages, STAGE)
  for k, stage in ipairs(config.stages or {}) do
    local name = ("stages[%d].signals"):format(k)
    check_list(path, name, stage.signals, SIGNAL)
    for j, signal in ipairs(stage.signals or {}) do -- older runs have a list where a setting has no name
      local settings = signal.settings
      if settings ~= nil and (type(settings) ~= "table" or not json.is_array(settings)) then
        check(path, ("%s[%d].settings"):format(name, j), settings, TIMES)
      end
    end
  end
  return config
end

return M
