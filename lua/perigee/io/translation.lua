--- Names from one form into the other, by tables of names (io/names/).
local names_room = require "perigee.io.names"

local M = {}

--- A function that turns a name of one form into the other form, or returns nil. `step` is added to each position.
local function translator(from, to, step)
  local pattern = "^" .. from:gsub("[%.%-]", "%%%0"):gsub("#", "(%%d+)"):gsub("%*", "([%%w_]+)") .. "$"
  return function(name)
    local captures = { name:match(pattern) }
    if not captures[1] then return nil end
    local k = 0
    return (to:gsub("[#%*]", function(mark)
      k = k + 1
      return mark == "#" and ("%d"):format(tonumber(captures[k]) + step) or captures[k]
    end))
  end
end

--- One of ours -> theirs: a name, or a list of them; false in it is a part that theirs lack.
local function outward_of(pair)
  if type(pair[2]) == "string" then return translator(pair[1], pair[2], -1) end
  local each = {}
  for k, theirs in ipairs(pair[2]) do each[k] = theirs and translator(pair[1], theirs, -1) end
  return function(name)
    local list = {}
    for k, translate in ipairs(each) do list[k] = translate and translate(name) end
    return list[1] and list
  end
end

local made = setmetatable({}, { __mode = "k" }) -- table of names -> its translators

local function translators(names)
  if made[names] then return made[names] end
  local both = { outward = {}, inward = {} }
  for _, pair in ipairs(names) do
    table.insert(both.outward, outward_of(pair))
    for _, theirs in ipairs(type(pair[2]) == "table" and pair[2] or { pair[2] }) do
      if theirs then table.insert(both.inward, translator(theirs, pair[1], 1)) end
    end
  end
  made[names] = both
  return both
end

local function first(list, name)
  for _, translate in ipairs(list) do
    local found = translate(name)
    if found then return found end
  end
end

--- A table of names, given itself or by its name.
---@param names perigee.PublicNames
function M.table_of(names) return type(names) == "table" and names or names_room[names] end

--- Their name for one of ours, a list of names where it is several tensors there, or nil.
function M.outward(names, ours) return first(translators(names).outward, ours) end

--- Our name for one of theirs, or nil.
function M.inward(names, theirs) return first(translators(names).inward, theirs) end

--- The shapes of a file's tensors by our names, of those that the kind's table knows.
---@param file perigee.WeightsFile
---@param kind perigee.WeightsKind
---@return table<string, integer[]>
function M.shapes_inward(file, kind)
  local shapes = {}
  for name, entry in pairs(file.entries) do
    local own = name:sub(1, #kind.prefix) == kind.prefix and M.inward(kind.table, name:sub(#kind.prefix + 1))
    if own then shapes[own] = entry.shape end
  end
  return shapes
end

--- Does a name begin as one of these lists says? "#" in an entry is a position.
---@param lists (string[]|nil)[]
function M.is_ignored(name, lists)
  for _, list in pairs(lists) do
    for _, beginning in ipairs(list) do
      if name:find("^" .. beginning:gsub("[%.%-]", "%%%0"):gsub("#", "%%d+")) then return true end
    end
  end
  return false
end

return M
