--- Checks of what a user hands in: options tables with known keys and types, errors at the user's own line.
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"
local tables = require "perigee.base.tables"

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
  core.fail("%s: option '%s' is %s; expected one of %s", what, key, tostring(value), table.concat(choices, ", "))
end

--- A rule's bounds as text: "2 numbers from 0 to below 1".
local function range_text(rule)
  local text = rule.length and ("%d numbers"):format(rule.length) or rule.finite and "a finite number" or "a number"
  if rule.least then text = ("%s from %g"):format(text, rule.least) end
  if rule.above then text = ("%s above %g"):format(text, rule.above) end
  if rule.most then text = ("%s to %g"):format(text, rule.most) end
  if rule.below then text = ("%s %sbelow %g"):format(text, rule.least and "to " or "", rule.below) end
  return text
end

local function is_bounded(x, rule)
  return type(x) == "number" and x == x and math.abs(x) < math.huge
    and not (rule.least and x < rule.least or rule.above and x <= rule.above)
    and not (rule.most and x > rule.most or rule.below and x >= rule.below)
end

--- Whether a value is of a rule's kind and within its bounds; else what the rule allows, as text.
local function fits(value, rule)
  local kinds_text, of_kind = type(rule) == "table" and rule[1] or rule, false
  for kind in kinds_text:gmatch "[^|]+" do of_kind = of_kind or matches(value, kind) end
  if not of_kind then return false, kinds_text end
  local bounded = type(rule) == "table" and (rule.finite or rule.length or rule.least or rule.above or rule.most
    or rule.below)
  if not bounded then return true end
  local list, fine = type(value) == "table" and value or { value }, true
  for _, x in ipairs(list) do fine = fine and is_bounded(x, rule) end
  return fine and #list == (rule.length or #list), range_text(rule)
end

local function text_of(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for k, x in ipairs(value) do parts[k] = tostring(x) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

--- Checks one value by a rule as of options(); `what` names it in the error.
---@return any value
function M.value(what, value, rule)
  local fine, expected = fits(value, rule)
  if not fine then core.fail("%s: expected %s, got %s", what, expected, text_of(value)) end
  return value
end

--- A size option as { height, width }.
function M.size(size)
  if type(size) == "number" then return { size, size } end
  return { size[1], size[2] }
end

--- Checks an options table and returns a copy with defaults filled in. `spec` maps a key to { type, default }, or to a
--- type name where the option is required; { type } alone is optional; { "string", default, choices = { ... } } allows
--- only those. Types: number, integer, count (from 1), natural (from 0), fraction (0 to 1), numbers, counts (lists),
--- size (n or { height, width }), string, boolean, table, function, tensor, any, or several with "|". A number, or each
--- in a list, may be bounded by `least`, `above`, `most` and `below`, a list's length is `length`; with any of them, or
--- `finite`, numbers must be finite.
function M.options(what, given, spec)
  if type(given) ~= "table" then core.fail("%s: expected a table of options, got %s", what, type(given)) end
  local result = {}
  for key, value in pairs(given) do
    local rule = spec[key]
    if rule == nil then
      core.fail("%s: unknown option '%s'%s", what, tostring(key), nearest.hint(tostring(key), tables.sorted_keys(spec)))
    end
    local fine, expected = fits(value, rule)
    if not fine then
      core.fail("%s: option '%s' is a %s (%s); expected %s", what, key, type(value), text_of(value), expected)
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
