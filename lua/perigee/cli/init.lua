--- The command line: `perigee VERB ...` runs lua/perigee/cli/VERB.lua. Such a file returns
---
---   { summary = "one line", usage = "RECIPE [options]", description = "a paragraph",
---     options = { ... },          -- or a function that returns them, where the library is asked
---     recipe = true,              -- the first argument is a recipe: its own options join the command's
---     stop = 1,                   -- leave what follows the first argument as it is
---     remembered = function(options, recipe) ... end,   -- what an earlier call said: { recipe =, command = }, or nil
---     run = function(options) ... end }
---
--- `run` gets the options by name and the positional arguments by number; with `recipe`, also `recipe` (what the file
--- returned), `recipe_path`, `recipe_options` and `said`: what the command line says of both's options, `remembered`
--- included. It returns an exit status, or nothing for 0. A user's mistake is an
--- error whose message has no position, or one in the user's own file; anything else is a defect, with a traceback
--- (PERIGEE_TRACEBACK=1: always).
---
--- A verb requires what it needs inside `run`: --help loads every verb, and must be quick.
local failure = require "perigee.base.failure"
local lfs = require "lfs"
local nearest = require "perigee.base.nearest"
local options = require "perigee.base.options"
local printable = require "perigee.base.printable"
local tables = require "perigee.base.tables"

local M = {}

local folder = debug.getinfo(1, "S").source:match "^@(.*)/init%.lua$"

local function module_of(name)
  local fine, verb = pcall(require, "perigee.cli." .. name)
  if not fine then return nil, verb end
  return type(verb) == "table" and verb.run and verb.summary and verb or nil
end

--- Names of the verbs, sorted.
function M.verbs()
  local names = {}
  for file in lfs.dir(folder) do
    local name = file:match "^(%a[%w_]*)%.lua$"
    if name and name ~= "init" and (module_of(name) or select(2, module_of(name))) then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function general_help()
  local lines = { "usage: perigee COMMAND [options]\n\nTrains diffusion transformers from Lua recipes.\n\nCommands\n" }
  for _, name in ipairs(M.verbs()) do
    local verb = module_of(name)
    lines[#lines + 1] = ("  %-13s%s\n"):format(name, verb and verb.summary or "(cannot be loaded)")
  end
  lines[#lines + 1] = "\n`perigee COMMAND --help` says more; `perigee --version` prints the version.\n"
  return table.concat(lines)
end

local function verb_help(name, verb, list, load)
  local description = verb.description or verb.summary .. "."
  local lines = { ("usage: perigee %s %s\n\n%s\n"):format(name, verb.usage or "", description) }
  if #list > 0 then lines[#lines + 1] = "\nOptions\n" .. options.help(list) end
  if load and #load.declared > 0 then
    lines[#lines + 1] = ("\nOptions of %s\n"):format(load.path) .. options.help(load.declared)
  end
  return table.concat(lines)
end

--- The recipe among the arguments: the first positional one, or a .lua file that follows an unknown flag (which may
--- have been a boolean of the recipe's).
local function recipe_path(given, unknown)
  if given[1] then return given[1] end
  for index = 2, #unknown do
    if unknown[index]:match "%.lua$" then return unknown[index] end
  end
end

--- A verb's options as declared.
local function options_of(verb)
  local declaration = {}
  for key, entry in pairs(type(verb.options) == "function" and verb.options() or verb.options or {}) do
    declaration[key] = entry
  end
  if verb.recipe then
    table.insert(declaration, { name = "set", type = "pairs", help = "set an option of the recipe; may be repeated" })
  end
  return options.declare(declaration)
end

local function read_with_recipe(name, verb, list, arguments)
  local given, unknown = options.parse(list, arguments, { unknown = true })
  local path = recipe_path(given, unknown)
  local recipes = require "perigee.recipe.load"
  if given.help then
    return nil, verb_help(name, verb, list, path and recipes.load(path, { only_declaration = true }))
  end
  if not path then error(("perigee %s needs a recipe: perigee %s %s"):format(name, name, verb.usage or ""), 0) end
  if given.resume then require("perigee.io.owner").tell(path) end
  local load = recipes.load(path, { arguments = arguments, command = list })
  local values = options.values(list, load.given)
  local before = verb.remembered and verb.remembered(values, load.value)
  if before then
    load = recipes.load(path, { arguments = arguments, command = list, before = before.recipe })
    load.given = tables.merged(before.command, load.given)
    values = options.values(list, load.given)
  end
  rawset(values, "recipe", load.value or false)
  rawset(values, "recipe_path", path)
  rawset(values, "recipe_options", load.values)
  rawset(values, "said", { recipe = load.said, command = load.given })
  return values
end

--- What a verb is given by its arguments, checked; nothing is run but the recipe's file. Nil and a text where they ask
--- for help.
---@param name string
---@param verb table
---@param arguments string[]
---@return table? values, string? help
function M.read(name, verb, arguments)
  local list = options_of(verb)
  if verb.recipe then return read_with_recipe(name, verb, list, arguments) end
  local given = options.parse(list, arguments, { stop = verb.stop })
  if given.help then return nil, verb_help(name, verb, list) end
  return options.values(list, given)
end

--- Runs one command; raises errors.
---@param arguments string[]
---@return integer status
function M.dispatch(arguments)
  local name = arguments[1]
  if not name or name == "--help" or name == "-h" or (name == "help" and not arguments[2]) then
    io.write(general_help())
    return 0
  elseif name == "--version" then
    local ffi = require "ffi"
    io.write("perigee ", ffi.string(require("perigee.core.ffi").C.pg_version()), "\n")
    return 0
  elseif name == "help" then
    return M.dispatch { arguments[2], "--help" }
  end
  local file = name:match "^%a[%w_]*$" and lfs.attributes(("%s/%s.lua"):format(folder, name))
  local verb, message
  if file then verb, message = module_of(name) end
  if message then error(message, 0) end
  if not verb then
    io.stderr:write(("perigee: unknown command \"%s\"%s\n"):format(name, nearest.hint(name, M.verbs())),
                    "`perigee --help` lists them\n")
    return 2
  end
  local values, help = M.read(name, verb, { unpack(arguments, 2) })
  if help then
    io.write(help)
    return 0
  end
  require("perigee.core.limits").apply()
  local status = verb.run(values)
  if status == false then return 1 end
  return type(status) == "number" and status or 0
end

--- Runs one command and reports its errors.
---@param arguments string[]
---@return integer status
function M.main(arguments)
  local fine, status = xpcall(function() return M.dispatch(arguments) end, failure.handler)
  io.stdout:flush()
  if fine then return status end
  io.stderr:write(printable.text(failure.text(status)), "\n")
  return 1
end

return setmetatable(M, { __call = function() return M.main(arg) end })
