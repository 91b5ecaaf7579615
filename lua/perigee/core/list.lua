--- Lists that C, CUDA and Lua share. A header of C holds one as a macro, an item a line; an item's number is its place:
---
---     #define PG_REDUCE(X) \
---       X(sum)             \
---       X(mean)
local home = require "perigee.core.home"
local whole_file = require "perigee.base.whole_file"

local M = {}

---@class perigee.List
---@field names string[]                  in the order of the header
---@field number table<string, integer>   by name, from `first`
---@field name table<integer, string>     by number
---@field text string                     "sum, mean or max", for messages
---@field columns table<string, string[]> by name, what else stands in its brackets, without quotes

--- Reads lists of one header; the numbers run on from one list to the next.
---@param header string   its path from the project's root
---@param macros string[] the macros' names
---@param first? integer  the first item's number; default 0
---@return perigee.List
function M.read(header, macros, first)
  local list = { names = {}, number = {}, name = {}, columns = {} }
  local text, message = whole_file.read(home .. "/" .. header)
  if not text then error("perigee: cannot read " .. message, 0) end
  text = text:gsub("\\\n", " ")
  for _, macro in ipairs(macros) do
    local items = text:match("#define " .. macro .. "%(X%)([^\n]*)")
    if not items then error(("%s has no list %s(X)"):format(header, macro), 0) end
    for item in items:gmatch "X(%b())" do
      local name, rest = item:match "^%(([%w_]+),?%s*(.*)%)$"
      local number = (first or 0) + #list.names
      list.names[#list.names + 1], list.number[name], list.name[number] = name, number, name
      list.columns[name] = {}
      for column in rest:gmatch "[^,%s][^,]*" do table.insert(list.columns[name], (column:gsub('"', ""))) end
    end
  end
  list.text = table.concat(list.names, ", "):gsub(", ([%w_]+)$", " or %1")
  return list
end

return M
