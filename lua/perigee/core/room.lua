--- Rooms whose files are the things in them, each found by its name: pg.stop.NAME is made of what
--- lua/perigee/stops/NAME.lua returns. Nothing lists them. A folder perigee/stops/ elsewhere on Lua's path
--- (package.path, LUA_PATH) adds to the room.
local core = require "perigee.core.ffi"
local lfs = require "lfs"
local nearest = require "perigee.base.nearest"
local tables = require "perigee.base.tables"

local M = {}

local function files_of(folder)
  local list = {}
  if lfs.attributes(folder, "mode") == "directory" then
    for file in lfs.dir(folder) do list[#list + 1] = file end
  end
  return list
end

--- The names of a room's files, sorted; its init.lua is the room itself.
---@param module string  such as "perigee.stops"
---@return string[]
function M.names(module)
  local names, seen = {}, { init = true }
  for root in package.path:gmatch "([^;]*)%?%.lua" do
    for _, file in ipairs(files_of(root .. module:gsub("%.", "/"))) do
      local name = file:match "^([%w_]+)%.lua$"
      if name and not seen[name] then
        seen[name], names[#names + 1] = true, name
      end
    end
  end
  table.sort(names)
  return names
end

---@class perigee.RoomOptions
---@field module string  such as "perigee.stops"
---@field what string    what a thing in it is called in messages: "stop"
---@field make? fun(name: string, value: any): any  what a file returns -> what the room holds: that itself
---@field families? boolean  a file returns a table of things, whose names begin with its own: sit.lua has sit_xl_2

--- The file that has a name: NAME.lua, and in a room of families also the file of the longest beginning of the name:
--- sit_xl.lua or sit.lua for sit_xl_2. Nil where there is none.
local function file_of(module, name, families)
  if type(name) ~= "string" or not name:match "^[%w_]+$" then return nil end
  local file = name
  while file and (file == "init" or not package.searchpath(module .. "." .. file, package.path)) do
    file = families and file:match "^(.+)_[^_]*$"
  end
  return file
end

--- The names of all things in a room, sorted. A room of families loads its files for that.
local function names_of(options)
  local files = M.names(options.module)
  if not options.families then return files end
  local names = {}
  for _, file in ipairs(files) do
    for name in pairs(require(options.module .. "." .. file)) do names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- A table whose fields are a room's things, loaded when first used. `members`: what it holds besides. An unknown name
--- is an error with the list, in a room of families that of the name's family, and the nearest name.
---@param options perigee.RoomOptions
---@param members? table
function M.open(options, members)
  local module, make, families = options.module, options.make, options.families
  return setmetatable(members or {}, {
    module = module, names = function() return names_of(options) end, -- for completion and help
    __index = function(room, name)
      local file = file_of(module, name, families)
      local value = file and require(module .. "." .. file)
      if file and families then value = value[name] end
      if value == nil then
        local names = names_of(options)
        local list = families and file and tables.sorted_keys(require(module .. "." .. file)) or families
          and M.names(module) or names
        list = table.concat(list, ", ") .. (families and not file and ", or a name that begins so" or "")
        for key in next, room do names[#names + 1] = key end
        core.fail("unknown %s '%s'; expected one of %s%s", options.what, tostring(name), list,
          nearest.hint(tostring(name), names))
      end
      if make then value = make(name, value) end
      rawset(room, name, value)
      return value
    end,
  })
end

return M
