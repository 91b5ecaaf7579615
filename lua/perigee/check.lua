--- Checks of what a user hands in: options tables with known keys and types, errors at the user's own line.
local core = require "perigee.core.ffi"
local nearest = require "perigee.nearest"

local M = {}

local function matches(value, kind)
  if kind == "any" then return true end
  if kind == "integer" then return type(value) == "number" and value % 1 == 0 end
  if kind == "tensor" then return require("perigee.core.tensor").is_tensor(value) end
  return type(value) == kind
end

--- Checks an options table and returns a copy with defaults filled in. `spec` maps a key to { type, default }, or to a type
--- name where the option is required; { type } alone is optional. Types: number, integer, string, boolean, table,
--- function, tensor, any, or several with "|".
function M.options(what, given, spec)
  if type(given) ~= "table" then core.fail("%s: expected a table of options, got %s", what, type(given)) end
  local result = {}
  for key, value in pairs(given) do
    local rule = spec[key]
    if rule == nil then
      local names = {}
      for name in pairs(spec) do names[#names + 1] = tostring(name) end
      core.fail("%s: unknown option '%s'%s", what, tostring(key), nearest.hint(tostring(key), names))
    end
    local kinds = type(rule) == "table" and rule[1] or rule
    local fits = false
    for kind in kinds:gmatch "[^|]+" do fits = fits or matches(value, kind) end
    if not fits then core.fail("%s: option '%s' is a %s (%s); expected %s", what, key, type(value), tostring(value), kinds) end
    result[key] = value
  end
  for key, rule in pairs(spec) do
    if result[key] == nil then
      if type(rule) == "string" then core.fail("%s: option '%s' is missing", what, key) end
      result[key] = rule[2]
    end
  end
  return result
end

return M
