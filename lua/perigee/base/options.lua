--- Options: declared once in a table, then parsed from a command line, checked, and listed by --help. Commands use
--- this for their flags and recipes for theirs (perigee.recipe.options).
---
---   { name = "steps", type = "integer", default = 1000, help = "steps to run", min = 1 }
---
--- On the command line `--steps 10` and `--steps=10`; a boolean is `--resume` and `--no-resume` (`--help` says what
--- the one does that is not the default); a list or pairs is repeated; `_` and `-` are the same. `--` ends the options;
--- what isn't a flag is positional.
local nearest = require "perigee.base.nearest"
local tables = require "perigee.base.tables"

local M = {}

---@class perigee.Option
---@field name string
---@field type? "number"|"integer"|"string"|"boolean"|"choice"|"list"|"pairs"  else told from `choices` or `default`
---@field default? any
---@field help string                 one line
---@field off? string                 of a switch that is on by default: what --no-NAME does, in place of `help`
---@field value? string               what --help calls the value, as in "DIR"
---@field choices? string[]
---@field min? number
---@field max? number
---@field required? boolean
---@field hidden? boolean             not listed by --help

local KEYS = { name = true, type = true, default = true, help = true, value = true, choices = true, min = true,
               max = true, required = true, hidden = true, off = true }
local TYPES = { number = true, integer = true, string = true, boolean = true, choice = true, list = true,
                pairs = true }

local function fail(format, ...) error(format:format(...), 0) end

local function told_type(entry)
  if entry.choices then return "choice" end
  local kind = type(entry.default)
  return (kind == "number" or kind == "boolean") and kind or "string"
end

local check -- check(option, value) -> value; defined below

--- One entry, { "name", default, "help" } or { name =, default =, help = }, as a whole perigee.Option.
local function normalise(entry, name)
  if type(entry) ~= "table" then
    fail("option %s: expected a table like { default = 64, help = \"...\" }, got a %s", tostring(name), type(entry))
  end
  local option = { name = name or entry.name or entry[1], default = entry.default, help = entry.help }
  if not name and not entry.name then
    if option.default == nil then option.default = entry[2] end
    option.help = option.help or entry[3]
  end
  if type(option.name) ~= "string" or not option.name:match "^%a[%w_-]*$" then
    fail("an option's name is %s; expected letters, digits and _", tostring(option.name))
  end
  option.name = option.name:gsub("-", "_")
  for key, value in pairs(entry) do
    if type(key) == "string" then
      if not KEYS[key] then
        fail("option %s: unknown key \"%s\"%s", option.name, key, nearest.hint(key, tables.sorted_keys(KEYS)))
      end
      if key ~= "name" then option[key] = value end
    end
  end
  option.type = option.type or told_type(option)
  if not TYPES[option.type] then
    local names = table.concat(tables.sorted_keys(TYPES), ", ")
    fail("option %s: type \"%s\" is none of %s", option.name, tostring(option.type), names)
  end
  option.help = option.help or ""
  if option.default ~= nil then option.default = check(option, option.default) end
  return option
end

--- Turns a declaration, entries in a list or by name or both, into a list of options with an index by name.
---@param declaration table
---@return perigee.Option[]
function M.declare(declaration)
  local list, by_name = {}, {}
  local function add(option)
    if by_name[option.name] then fail("option %s is declared twice", option.name) end
    list[#list + 1], by_name[option.name] = option, option
  end
  for _, entry in ipairs(declaration) do add(normalise(entry)) end
  local names = {}
  for name in pairs(declaration) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do add(normalise(declaration[name], name)) end
  list.by_name = by_name
  return list
end

--- Several declared lists as one.
function M.join(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, option in ipairs(list) do all[#all + 1] = option end
  end
  return M.declare(all)
end

-- values --------------------------------------------------------------------------------------------------------

local function flag(option) return "--" .. option.name:gsub("_", "-") end

local BOOLEANS = { ["true"] = true, yes = true, on = true, ["1"] = true,
                   ["false"] = false, no = false, off = false, ["0"] = false }

local function check_number(option, value)
  local number = tonumber(value)
  if not number or number ~= number then fail("%s: expected a number, got \"%s\"", flag(option), tostring(value)) end
  if option.type == "integer" and number % 1 ~= 0 then
    fail("%s: expected a whole number, got %s", flag(option), tostring(value))
  end
  if option.min and number < option.min then
    fail("%s: %s is too small, the least is %s", flag(option), tostring(value), tostring(option.min))
  end
  if option.max and number > option.max then
    fail("%s: %s is too big, the most is %s", flag(option), tostring(value), tostring(option.max))
  end
  return number
end

local checks = { number = check_number, integer = check_number }

function checks.string(option, value)
  if type(value) ~= "string" then fail("%s: expected a string, got a %s", flag(option), type(value)) end
  return value
end

function checks.boolean(option, value)
  if type(value) == "string" then value = BOOLEANS[value:lower()] end
  if type(value) ~= "boolean" then fail("%s: expected true or false", flag(option)) end
  return value
end

function checks.choice(option, value)
  for _, choice in ipairs(option.choices) do
    if value == choice or tostring(choice) == value then return choice end
  end
  local names = {}
  for index, choice in ipairs(option.choices) do names[index] = tostring(choice) end
  fail("%s: \"%s\" is none of %s%s", flag(option), tostring(value), table.concat(names, ", "),
       nearest.hint(tostring(value), names))
end

function checks.list(option, value)
  if type(value) ~= "table" then fail("%s: expected a list, got a %s", flag(option), type(value)) end
  return value
end
checks.pairs = checks.list

--- The value as the option's type, or an error that names the flag. Text is converted.
---@param option perigee.Option
function M.check(option, value) return checks[option.type](option, value) end
check = M.check

-- the command line ----------------------------------------------------------------------------------------------

local function store(values, option, text)
  if option.type == "list" then
    values[option.name] = values[option.name] or {}
    table.insert(values[option.name], text)
  elseif option.type == "pairs" then
    local key, value = text:match "^([%a_][%w_.%-]*)=(.*)$"
    if not key then fail("%s: expected KEY=VALUE, got \"%s\"", flag(option), text) end
    values[option.name] = values[option.name] or {}
    values[option.name][key:gsub("-", "_")] = value
  else
    values[option.name] = check(option, text)
  end
end

--- Looks up `--name`: the option, and whether it was written `--no-name`.
local function find(list, name)
  name = name:gsub("-", "_")
  local option = list.by_name[name]
  if option then return option, false end
  option = list.by_name[name:match "^no_(.*)$"]
  if option and option.type == "boolean" then return option, true end
end

local function names_of(list)
  local names = { "help" }
  for _, option in ipairs(list) do
    if not option.hidden then names[#names + 1] = (option.name:gsub("_", "-")) end
  end
  return names
end

---@class perigee.ParseOptions
---@field unknown? boolean  collect flags that aren't declared into `unknown` instead of failing
---@field stop? integer     leave everything after this many positional arguments as it is

--- Parses arguments. `given` holds only what the command line says: options by name and positional arguments by
--- number; `given.help` is true for --help and -h, wherever it stands.
---@param list perigee.Option[]  from declare()
---@param arguments string[]
---@param how? perigee.ParseOptions
---@return table given, string[] unknown
function M.parse(list, arguments, how)
  how = how or {}
  local given, unknown, k = {}, {}, 1
  while k <= #arguments do
    local word = arguments[k]
    k = k + 1
    local name, value = word:match "^%-%-([^=]+)=(.*)$"
    name = name or word:match "^%-%-(.+)$"
    if how.stop and #given >= how.stop then
      given[#given + 1] = word
    elseif word == "--" then
      for rest = k, #arguments do given[#given + 1] = arguments[rest] end
      break
    elseif word == "-h" or word == "--help" then
      given.help = true
    elseif name then
      local option, negated = find(list, name)
      if not option and how.unknown then
        unknown[#unknown + 1] = word
        -- whether it takes a value isn't known yet: the next word is kept with it
        local following = arguments[k]
        if not value and following and not following:match "^%-%-" then
          unknown[#unknown + 1] = following
          k = k + 1
        end
      elseif not option then
        fail("unknown option --%s%s", name, nearest.hint(name, names_of(list), "--"))
      elseif option.type == "boolean" then
        if negated and value then fail("--%s takes no value", name) end
        given[option.name] = not negated and (value == nil or check(option, value))
      else
        if value == nil then
          value = arguments[k]
          k = k + 1
          if value == nil or value:match "^%-%-%a" then fail("%s needs a value", flag(option)) end
        end
        store(given, option, value)
      end
    elseif word:match "^%-%a" then
      fail("unknown option %s; options are written --name", word)
    else
      given[#given + 1] = word
    end
  end
  return given, unknown
end

--- A table of values that knows its names: reading one that isn't declared is an error at the reader's line.
---@param list perigee.Option[]
---@param given table  as from parse(); what it lacks takes its default
---@return table
function M.values(list, given)
  local values = {}
  for index, word in ipairs(given) do values[index] = word end
  for _, option in ipairs(list) do
    local value = given[option.name]
    if value == nil then value = option.default end
    if value == nil and option.required then fail("%s is needed: %s", flag(option), option.help) end
    if value == nil and (option.type == "list" or option.type == "pairs") then value = {} end
    values[option.name] = value
  end
  return setmetatable(values, { __index = function(_, key)
    if type(key) ~= "string" or list.by_name[key] then return nil end
    error(("no option is called \"%s\"%s"):format(key, nearest.hint(key, names_of(list))), 2)
  end })
end

-- help ----------------------------------------------------------------------------------------------------------

local PLACEHOLDERS = { number = "X", integer = "N", string = "TEXT", list = "TEXT", pairs = "KEY=VALUE" }

local function left_column(option)
  local name = option.name:gsub("_", "-")
  if option.type == "boolean" then
    return option.off and "--no-" .. name or option.default and "--[no-]" .. name or "--" .. name
  end
  local value = option.value or PLACEHOLDERS[option.type]
  if option.type == "choice" then
    local names = {}
    for index, choice in ipairs(option.choices) do names[index] = tostring(choice) end
    value = option.value or table.concat(names, "|")
  end
  return "--" .. name .. " " .. value
end

local function right_column(option)
  local text = option.off or option.help
  if option.type == "boolean" and option.default and not option.off then return text .. " (default yes)" end
  if option.required then return text .. " (needed)" end
  local default = option.default
  if default == nil or default == "" or type(default) == "boolean" or type(default) == "table" then return text end
  if type(default) == "number" then default = ("%.14g"):format(default) end
  return ("%s (default %s)"):format(text, tostring(default))
end

--- The lines of --help, one an option.
---@param list perigee.Option[]
---@return string
function M.help(list)
  local lines, width = {}, 0
  for _, option in ipairs(list) do
    if not option.hidden then width = math.max(width, #left_column(option)) end
  end
  width = math.min(width, 34)
  for _, option in ipairs(list) do
    if not option.hidden then
      local left = left_column(option)
      local gap = #left > width and "\n" .. (" "):rep(width + 4) or (" "):rep(width + 2 - #left)
      lines[#lines + 1] = ("  %s%s%s\n"):format(left, gap, right_column(option))
    end
  end
  return table.concat(lines)
end

return M
