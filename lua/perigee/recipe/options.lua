--- Options that a recipe declares.
---
---   local options = pg.options {
---     data  = { default = "data/cifar10", help = "folder with the images" },
---     batch = { default = 64, type = "integer", help = "images a step" },
---   }
---
--- or, where their order matters to --help, as a list of { "name", default, "help" }. The values are the defaults, with
--- the command's flags (`perigee train recipe.lua --batch 32`) and `--set batch=32` applied. They belong to the file
--- that the command names: a recipe that other Lua code loads, another recipe for instance, gets its defaults.
local failure = require "perigee.base.failure"
local nearest = require "perigee.base.nearest"
local options = require "perigee.base.options"

local M = {}

local STOP = {} -- raised by declare() to end a load that only wants the declaration

local current -- the load under way, a perigee.RecipeLoad

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
  for _, option in ipairs(list) do -- an earlier call's, where this one says nothing
    local before = (load.before or {})[option.name]
    if values[option.name] == nil and before ~= nil then values[option.name] = options.check(option, before) end
  end
  load.said = values
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

--- Runs a recipe's chunk, whose declaration reads the load's command line. Returns true and the recipe (nil where the
--- load only wants the declaration), or false and an error.
---@param load perigee.RecipeLoad
---@param chunk function
---@return boolean, any
function M.run(load, chunk)
  local outer = current
  current = load
  local fine, value = xpcall(chunk, failure.handler)
  current = outer
  if value == STOP then return true, nil end
  return fine, value
end

--- Completes a load after its chunk: a recipe without options still reads its command line, and every --set must have
--- met an option.
---@param load perigee.RecipeLoad
function M.finish(load)
  if not load.declared then
    load.declared = options.declare {}
    if not load.replayed and not load.only_declaration then read_command_line(load, load.declared) end
  end
  local unclaimed = load.given and load.given.set and next(load.given.set)
  if unclaimed then
    local names = {}
    for k, option in ipairs(load.declared) do names[k] = option.name end
    error(("--set %s: %s has no such option%s"):format(unclaimed, load.path, nearest.hint(unclaimed, names)), 0)
  end
end

return M
