--- Options that a recipe declares, and the loading of recipe files.
---
---   local options = pg.options {
---     data  = { default = "data/cifar10", help = "folder with the images" },
---     batch = { default = 64, type = "integer", help = "images a step" },
---   }
---
--- or, where their order matters to --help, as a list of { "name", default, "help" }. The values are the defaults, with
--- the command's flags (`perigee train recipe.lua --batch 32`) and `--set batch=32` applied. They belong to the file
--- that the command names: a recipe that other Lua code loads, another recipe for instance, gets its defaults.
local core = require "perigee.core.ffi"
local failure = require "perigee.base.failure"
local nearest = require "perigee.base.nearest"
local options = require "perigee.base.options"

local M = {}

local STOP = {} -- raised by declare() to end a load that only wants the declaration

local current -- the load under way, a perigee.RecipeLoad

---@class perigee.RecipeLoad
---@field path string
---@field value any               what the recipe returned
---@field declared perigee.Option[]
---@field values table<string, any>  the recipe's options, resolved
---@field given table             the command's own flags and positional arguments (with `arguments` only)

local function set_names(list)
  local names = {}
  for _, option in ipairs(list) do names[#names + 1] = option.name end
  return names
end

--- Parses the command line once the recipe's options are known: flags of both, and --set for the recipe's.
local function read_command_line(load, list)
  local own = {}
  for _, option in ipairs(list) do
    if not load.command.by_name[option.name] then own[#own + 1] = option end
  end
  local given = options.parse(options.join(load.command, own), load.arguments)
  local values = {}
  for _, option in ipairs(list) do
    local value = given[option.name]
    if value ~= nil then values[option.name] = options.check(option, value) end
    local set = given.set and given.set[option.name]
    if set ~= nil then
      values[option.name] = options.check(option, set)
      given.set[option.name] = nil
    end
  end
  load.given = given
  return values
end

--- Declares a recipe's options and returns their values. `pg.options` is this function.
---@param declaration table
---@return table
function M.declare(declaration)
  local fine, list = pcall(options.declare, declaration)
  if not fine then error(list, 2) end
  local caller = debug.getinfo(2, "S")
  if not current or caller.source ~= "@" .. current.path then return options.values(list, {}) end
  if current.declared then error("a recipe declares its options once", 2) end
  current.declared = list
  if current.only_declaration then error(STOP, 0) end
  local given = current.replayed or read_command_line(current, list)
  local values = options.values(list, given)
  for _, option in ipairs(list) do current.values[option.name] = rawget(values, option.name) end
  return values
end

--- A recipe's globals: those of Lua. Others are misspelt names, in reading and in writing.
local function strict_globals()
  local function names()
    local found = {}
    for name in pairs(_G) do found[#found + 1] = tostring(name) end
    return found
  end
  return setmetatable({}, {
    __index = function(_, name)
      local value = rawget(_G, name)
      if value == nil then
        error(("undefined variable \"%s\"%s"):format(tostring(name), nearest.hint(tostring(name), names())), 2)
      end
      return value
    end,
    __newindex = function(_, name)
      error(("assignment to an undefined variable \"%s\"; declare it with `local`"):format(tostring(name)), 2)
    end,
  })
end

--- Where a file's last statement begins, if that is a return.
local function tail_position(path, text)
  local line, found = 0, nil
  for content in (text .. "\n"):gmatch "(.-)\n" do
    line = line + 1
    if content:match "^return%f[%W]" then found = line end
  end
  return found and ("%s:%d"):format(path, found) or false
end

---@class perigee.LoadOptions
---@field arguments? string[]         a command line with the recipe's flags and the command's own ...
---@field command? perigee.Option[]   ... which are these
---@field values? table<string, any>  or: the recipe's options as they were resolved before (a recorded run)
---@field only_declaration? boolean   stop at the declaration of options (for --help)

--- Runs a recipe file.
---@param path string
---@param how? perigee.LoadOptions
---@return perigee.RecipeLoad
function M.load(path, how)
  how = how or {}
  local file, message = io.open(path, "r")
  if not file then error("cannot read the recipe " .. message, 0) end
  local text = file:read "*a"
  file:close()
  if not text then error(("cannot read the recipe %s: is it a folder?"):format(path), 0) end
  local chunk, syntax_error = loadstring(text:gsub("^#[^\n]*", ""), "@" .. path)
  if not chunk then error(syntax_error, 0) end
  setfenv(chunk, strict_globals())

  local load = { path = path, values = {}, arguments = how.arguments or {}, command = how.command or options.declare {},
                 replayed = how.values, only_declaration = how.only_declaration }
  local outer, outer_tail = current, core.tail_position
  current, core.tail_position = load, tail_position(path, text)
  local results = { xpcall(chunk, failure.handler) }
  current, core.tail_position = outer, outer_tail
  if not results[1] and results[2] ~= STOP then error(results[2], 0) end
  load.value = results[1] and results[2] or nil
  if not load.declared then
    load.declared = options.declare {}
    if not load.replayed and not load.only_declaration then read_command_line(load, load.declared) end
  end
  local set = load.given and load.given.set
  local unclaimed = set and next(set)
  if unclaimed then
    local hint = nearest.hint(unclaimed, set_names(load.declared))
    error(("--set %s: %s has no such option%s"):format(unclaimed, path, hint), 0)
  end
  return load
end

return M
