--- Completion of names: of globals, and of what a table, a tensor or a proxy holds.
local operand = require "perigee.core.operand"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local M = {}

local words = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
                "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

local function add_keys(t, set)
  for key in next, t do
    if type(key) == "string" then set[key] = true end
  end
end

--- The names under a value; no function of the value's own runs.
local function names_under(x)
  local set = {}
  local class = debug.getmetatable(x)
  if tensor.is_tensor(x) then add_keys(tensor.methods, set) end
  if tensor.is_tensor(x) or program.is_value(x) then
    add_keys(operand.methods, set)
    for _, key in ipairs { "shape", "dtype", "device" } do set[key] = true end
    return set
  end
  if type(x) == "table" then add_keys(x, set) end
  if type(class) == "table" and rawget(class, "names") then -- it says itself: a room (core/room.lua), a REPL's run
    for _, name in ipairs(class.names(x)) do set[name] = true end
    return set
  end
  while type(class) == "table" and type(rawget(class, "__index")) == "table" do
    add_keys(class.__index, set)
    class = debug.getmetatable(class.__index)
  end
  return set
end

local function child(x, key)
  if type(x) == "table" then
    local value = rawget(x, key)
    if value ~= nil then return value end
  end
  local class = debug.getmetatable(x)
  local index = type(class) == "table" and rawget(class, "__index")
  if type(index) == "table" then return child(index, key) end
end

--- Proposals for a word such as "run.st" or "batch:im": whole words, sorted.
---@param roots table[]  tables of globals
---@param options? { names?: function, child?: function }  how to look into values of another kind
function M.proposals(word, roots, options)
  local path, separator, last = word:match "^(.*)([%.:])([%w_]*)$"
  local set = {}
  if not path then
    for _, root in ipairs(roots) do add_keys(root, set) end
    for _, keyword in ipairs(words) do set[keyword] = true end
    path, separator, last = "", "", word
  else
    local value
    for position, key in path:gmatch "()([%w_]+)" do
      if position == 1 then
        for _, root in ipairs(roots) do
          if value == nil then value = rawget(root, key) end
        end
      else
        local step = options and options.child and options.child(value, key)
        if step == nil then step = child(value, key) end
        value = step
      end
      if value == nil then return {} end
    end
    if value == nil then return {} end
    local names = options and options.names and options.names(value)
    if names then
      for _, name in ipairs(names) do set[name] = true end
    else
      set = names_under(value)
    end
  end
  local list = {}
  for name in pairs(set) do
    if type(name) == "string" and name:sub(1, #last) == last and name:match "^[%a_][%w_]*$"
      and (last ~= "" or name:sub(1, 1) ~= "_") then
      list[#list + 1] = path .. separator .. name
    end
  end
  table.sort(list)
  return list
end

return M
