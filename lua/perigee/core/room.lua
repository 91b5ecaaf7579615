--- Rooms whose files are the things in them, each found by its name: pg.stop.NAME is made of what
--- lua/perigee/stops/NAME.lua returns. Nothing lists them. A folder perigee/stops/ elsewhere on Lua's path
--- (package.path, LUA_PATH) adds to the room.
local core = require "perigee.core.ffi"
local lfs = require "lfs"
local nearest = require "perigee.base.nearest"

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

--- A table whose fields are a room's things, loaded when first used. `members`: what it holds besides. An unknown name
--- is an error with the list and the nearest name.
---@param options perigee.RoomOptions
---@param members? table
function M.open(options, members)
  local module, make = options.module, options.make
  return setmetatable(members or {}, {
    names = function() return M.names(module) end, -- for completion
    __index = function(room, name)
      local file = type(name) == "string" and name:match "^[%w_]+$" and name ~= "init"
        and package.searchpath(module .. "." .. name, package.path)
      if not file then
        local names = M.names(module)
        core.fail("unknown %s '%s'; expected one of %s%s", options.what, tostring(name), table.concat(names, ", "),
          nearest.hint(tostring(name), names))
      end
      local value = require(module .. "." .. name)
      if make then value = make(name, value) end
      rawset(room, name, value)
      return value
    end,
  })
end

return M
