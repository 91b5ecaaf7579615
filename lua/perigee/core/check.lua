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

local WORDS = {
  integer = "a whole number", count = "a whole number from 1", natural = "a whole number from 0",
  fraction = "a number from 0 to 1", number = "a number", numbers = "a list of numbers",
  counts = "a list of whole numbers from 1", size = "a whole number or { height, width }", boolean = "true or false",
  string = "a string", table = "a table", tensor = "a tensor", ["function"] = "a function",
}

--- Kinds as text: "true or false, or a table".
local function words_of(kinds_text)
  local words = {}
  for kind in kinds_text:gmatch "[^|]+" do words[#words + 1] = WORDS[kind] or kind end
  return table.concat(words, ", or ")
end

local function check_choice(what, key, value, choices)
  for _, choice in ipairs(choices) do
    if value == choice then return end
  end
  core.fail("%s: option '%s' is %s; expected one of %s", what, key, tostring(value), table.concat(choices, ", "))
end

--- A rule's bounds as text: "2 numbers from 0 to below 1".
local function range_text(rule)
  local bounded = rule.least or rule.above or rule.most or rule.below
  local text = rule.length and ("%d numbers"):format(rule.length) or rule[1] == "numbers" and "numbers"
    or bounded and "a number" or "a finite number"
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
  rule = type(rule) == "table" and rule or {}
  local bounded = rule.length or rule.least or rule.above or rule.most or rule.below
  if not of_kind then return false, bounded and range_text(rule) or words_of(kinds_text) end
  if rule.infinite or type(value) ~= "number" and type(value) ~= "table"
    or not (bounded or kinds_text:find "number") then return true end
  local list, fine = type(value) == "table" and value or { value }, true
  for _, x in ipairs(list) do fine = fine and is_bounded(x, rule) end
  return fine and #list == (rule.length or #list), range_text(rule)
end

--- A value in a message: "a number (3)", "a function", "a table { 1, 2 }".
local function text_of(value)
  local kind = type(value)
  if kind == "nil" then return "missing" end
  if kind == "function" or kind == "userdata" then return "a " .. kind end
  if kind ~= "table" or getmetatable(value) then return ("a %s (%s)"):format(kind, tostring(value)) end
  if #value == 0 then return "a table" end
  local parts = {}
  for k, x in ipairs(value) do parts[k] = tostring(x) end
  return "a table { " .. table.concat(parts, ", ") .. " }"
end

local function refuse(what, value, expected, rule)
  rule = type(rule) == "table" and rule or {}
  local instead = type(value) == "function" and rule.instead
  core.fail("%s is %s; expected %s%s", what, text_of(value), rule.words or expected, instead and ": " .. instead or "")
end

--- Checks one value by a rule as of options(); `what` names it in the error.
---@return any value
function M.value(what, value, rule)
  local fine, expected = fits(value, rule)
  if not fine then refuse(what, value, expected, rule) end
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
--- in a list, may be bounded by `least`, `above`, `most` and `below`, a list's length is `length`; numbers
--- are finite unless the rule says `infinite`. `required`: as where the rule is a type's name. For messages: `words`
--- for the kind, and `instead`, said where a function is given.
function M.options(what, given, spec)
  if type(given) ~= "table" then core.fail("%s: expected a table of options, got %s", what, type(given)) end
  local result = {}
  for key, value in pairs(given) do
    local rule = spec[key]
    if rule == nil then
      local names = tables.sorted_keys(spec)
      for k, name in ipairs(names) do names[k] = tostring(name) end
      local hint = nearest.hint(tostring(key), names)
      core.fail("%s: unknown option '%s'%s", what, tostring(key),
        hint ~= "" and hint or names[1] and "; expected one of " .. table.concat(names, ", ") or "; it takes none")
    end
    local fine, expected = fits(value, rule)
    if not fine then
      refuse(("%s: option '%s'"):format(what, key), value, expected, rule)
    end
    if type(rule) == "table" and rule.choices then check_choice(what, key, value, rule.choices) end
    result[key] = value
  end
  for key, rule in pairs(spec) do
    if result[key] == nil then
      if type(rule) == "string" or rule.required then core.fail("%s: option '%s' is missing", what, key) end
      result[key] = rule[2]
    end
  end
  return result
end

return M
