--- Checks of what a user hands in: options tables with known keys and types, errors at the user's own line.
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"

local M = {}

local function is_whole(x, least) return type(x) == "number" and x % 1 == 0 and x >= least end

local function is_list(x, check)
  if type(x) ~= "table" then return false end
  for _, value in ipairs(x) do
    if not check(value) then return false end
  end
  return #x > 0 or next(x) == nil
end

local kinds = {
  any = function() return true end,
  integer = function(x) return is_whole(x, -math.huge) end,
  count = function(x) return is_whole(x, 1) end, -- 1, 2, ...
  natural = function(x) return is_whole(x, 0) end, -- 0, 1, ...
  fraction = function(x) return type(x) == "number" and x >= 0 and x <= 1 end, -- 0 to 1
  counts = function(x) return is_list(x, function(n) return is_whole(n, 1) end) end,
  numbers = function(x) return is_list(x, function(n) return type(n) == "number" end) end,
  size = function(x) -- n, or { height, width }
    return is_whole(x, 1) or (is_list(x, function(n) return is_whole(n, 1) end) and #x == 2)
  end,
  tensor = function(x) return require("perigee.core.tensor").is_tensor(x) end,
}

local function matches(value, kind)
  if kinds[kind] then return kinds[kind](value) end
  return type(value) == kind
end

local function check_choice(what, key, value, choices)
  for _, choice in ipairs(choices) do
    if value == choice then return end
  end
  core.fail("%s: option '%s' is %s; there are %s", what, key, tostring(value), table.concat(choices, ", "))
end

--- A size option as { height, width }.
function M.size(size)
  if type(size) == "number" then return { size, size } end
  return { size[1], size[2] }
end

--- Checks an options table and returns a copy with defaults filled in. `spec` maps a key to { type, default }, or to a
--- type name where the option is required; { type } alone is optional; { "string", default, choices = { ... } } allows
--- only those. Types: number, integer, count (from 1), natural (from 0), fraction (0 to 1), numbers, counts (lists),
--- size (n or { height, width }), string, boolean, table, function, tensor, any, or several with "|".
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
    local expected = type(rule) == "table" and rule[1] or rule
    local fits = false
    for kind in expected:gmatch "[^|]+" do fits = fits or matches(value, kind) end
    if not fits then
      core.fail("%s: option '%s' is a %s (%s); expected %s", what, key, type(value), tostring(value), expected)
    end
    if type(rule) == "table" and rule.choices then check_choice(what, key, value, rule.choices) end
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
