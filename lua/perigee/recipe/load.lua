--- Loading recipe files: strict globals, errors at the recipe's own lines, options from a command line or a recorded
--- run.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local language = require "perigee.core.language"
local lfs = require "lfs"
local nearest = require "perigee.base.nearest"
local options = require "perigee.base.options"
local recipe_options = require "perigee.recipe.options"
local whole_file = require "perigee.base.whole_file"

local M = {}

---@class perigee.RecipeLoad
---@field path string
---@field value any               what the recipe returned
---@field declared perigee.Option[]
---@field values table<string, any>  the recipe's options, resolved
---@field said table<string, any> those of them that a command line said (with `arguments` only)
---@field given table             the command's own flags and positional arguments (with `arguments` only)

--- A recipe's globals: those of Lua. Others are misspelt names, in reading and in writing.
local function strict_globals()
  local function names()
    local found = {}
    for name in pairs(_G) do found[#found + 1] = tostring(name) end
    return found
  end
  return setmetatable({}, {
    __index = function(_, name)
      local value = language[name] or rawget(_G, name)
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

--- The end of a message about a recipe that isn't there: the file in its folder that was probably meant.
local function neighbour(path)
  local folder, name = path:match "^(.-)([^/]*)$"
  local names = {}
  if lfs.attributes(folder == "" and "." or folder, "mode") == "directory" then
    for file in lfs.dir(folder == "" and "." or folder) do
      if file:match "%.lua$" then names[#names + 1] = file end
    end
  end
  return nearest.hint(name, names)
end

local EISDIR = 21

local function read(path)
  if files.kind(path) == "file" then return files.read(path) end
  local text, message, number = whole_file.read(path) -- a pipe, say
  if text then return text end
  if number == EISDIR then error(("cannot read the recipe %s: is it a folder?"):format(path), 0) end
  error("cannot read the recipe " .. message .. neighbour(path), 0)
end

---@class perigee.LoadOptions
---@field arguments? string[]         a command line with the recipe's flags and the command's own ...
---@field command? perigee.Option[]   ... which are these
---@field before? table<string, any>  what an earlier command line said of the recipe's options
---@field values? table<string, any>  or: the recipe's options as they were resolved before (a recorded run)
---@field only_declaration? boolean   stop at the declaration of options (for --help)

--- Runs a recipe file.
---@param path string
---@param how? perigee.LoadOptions
---@return perigee.RecipeLoad
function M.load(path, how)
  how = how or {}
  local text = read(path)
  local chunk, syntax_error = loadstring(text:gsub("^#[^\n]*", ""), "@" .. path)
  if not chunk then error(syntax_error, 0) end
  setfenv(chunk, strict_globals())
  local load = { path = path, values = {}, arguments = how.arguments or {}, command = how.command or options.declare {},
                 replayed = how.values, before = how.before, said = {}, only_declaration = how.only_declaration }
  local fine, value = core.at(tail_position(path, text), recipe_options.run, load, chunk)
  if not fine then error(value, 0) end
  load.value = value
  recipe_options.finish(load)
  return load
end

return M
