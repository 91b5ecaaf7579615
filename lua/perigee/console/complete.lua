--- Completion of names: of globals, of what a table, a tensor or a proxy holds, and of what calls and indices in a
--- chain give, x:narrow(1, 2, 1):su, as far as it is known to be a tensor. No call is made.
local operand = require "perigee.core.operand"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local M = {}

local words = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
                "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

local DEEPEST, MOST_KEYS = 20, 20000 -- metatables behind one another; keys of one table that are looked at

local function add_keys(t, set)
  local count = 0
  for key in next, t do
    count = count + 1
    if count > MOST_KEYS then break end
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
  for _ = 1, DEEPEST do
    if type(class) ~= "table" or type(rawget(class, "__index")) ~= "table" then break end
    add_keys(rawget(class, "__index"), set)
    class = debug.getmetatable(rawget(class, "__index"))
  end
  return set
end

local function child(x, key, depth)
  if (depth or 0) > DEEPEST then return nil end
  if type(x) == "table" then
    local value = rawget(x, key)
    if value ~= nil then return value end
  end
  local class = debug.getmetatable(x)
  local index = type(class) == "table" and rawget(class, "__index")
  if type(index) == "table" then return child(index, key, (depth or 0) + 1) end
  if tensor.is_tensor(x) or program.is_value(x) then
    return key == "T" and x or operand.methods[key] or tensor.methods[key]
  end
  if type(class) == "table" and rawget(class, "names") then -- a room or a REPL's run: reading it calls no user's code
    local fine, value = pcall(function() return x[key] end)
    return fine and value or nil
  end
end

-- ---- chains -----------------------------------------------------------------------------------------------------

--- Methods that give no tensor.
local OTHER = {}
for _, name in ipairs { "item", "totable", "pointer", "numel", "is_contiguous", "bytes", "free", "save", "size", "dim",
  "chunk", "split", "unbind", "allclose" } do OTHER[name] = true end

--- Where the expression begins that ends at `last`: names, dots and colons, calls, indices and strings, backwards. nil
--- where brackets do not match.
local function beginning(text, last)
  local open, position = { [")"] = "(", ["]"] = "[", ["}"] = "{" }, last
  while position > 0 do
    local c = text:sub(position, position)
    if open[c] then
      local depth, k = 0, position
      repeat
        local inner = text:sub(k, k)
        if open[inner] then depth = depth + 1
        elseif inner == "(" or inner == "[" or inner == "{" then depth = depth - 1 end
        k = k - 1
      until depth == 0 or k == 0
      if depth > 0 then return nil end
      position = k
    elseif c == '"' or c == "'" then
      local k = position - 1
      while k > 0 and text:sub(k, k) ~= c do k = k - 1 end
      if k == 0 then return nil end
      position = k - 1
    elseif c == " " and text:sub(position + 1):match "^[%({\"']" then -- f { ... }
      position = position - 1
    elseif c:match "[%w_%.:]" then position = position - 1
    else break end
  end
  return position + 1
end

--- Does a function's comment say that it returns a tensor?
local function returns_tensor(f)
  local help = require "perigee.console.help"
  return help.returns(f) == "perigee.Tensor"
end

local A_TENSOR = tensor.meta {} -- stands for one that a call would give

--- What the function `key` of an owner gives when it is called.
local function result_of(owner, key, f)
  if tensor.is_tensor(owner) or program.is_value(owner) then
    return (operand.methods[key] or tensor.methods[key]) and not OTHER[key] and A_TENSOR or nil
  end
  local pg = require "perigee"
  local of_library = rawequal(owner, pg) and require("perigee.core.create")[key] or rawequal(owner, pg.ops)
  if of_library and not OTHER[key] then return A_TENSOR end
  return type(f) == "function" and returns_tensor(f) and A_TENSOR or nil
end

--- The value of an expression such as `run:batch`, `x[1]:narrow(1, 2, 3)` or `pg.zeros(3)`, without a call; nil where
--- it is not known.
local function value_of(text, roots, step)
  local value, owner, key, position = nil, nil, nil, 1
  while position <= #text do
    local name, after = text:match("^[%.:]?%s*([%a_][%w_]*)()", position)
    local call, past = text:match("^%s*(%b())()", position)
    if not call then call, past = text:match("^%s*(%b{})()", position) end
    if not call then call, past = text:match("^%s*([\"'][^\"']*[\"'])()", position) end
    local _, behind = text:match("^(%b[])()", position)
    if name then
      owner, key = value, name
      if position == 1 then
        for _, root in ipairs(roots) do
          if value == nil then value = rawget(root, name) end
        end
      else value = step(value, name) end
      position = after
    elseif call and position == 1 and call:sub(1, 1) == "(" then
      value, position = value_of(call:sub(2, -2), roots, step), past
    elseif call then
      value, owner, position = result_of(owner, key, value), nil, past
    elseif behind then
      value, position = (tensor.is_tensor(value) or program.is_value(value)) and A_TENSOR or nil, behind
    else return nil end
    if value == nil then return nil end
  end
  return value
end

--- Proposals for a word such as "run.st" or "batch:im": whole words, sorted.
---@param word string
---@param roots table[]  tables of globals
---@param options? { names?: function, child?: function, before?: string }  how to look into values of another kind; and
---  what stands before the word on its line
function M.proposals(word, roots, options)
  local names, own = options and options.names, options and options.child
  local path, separator, last = word:match "^(.*)([%.:])([%w_]*)$"
  local set = {}
  if not path then
    for _, root in ipairs(roots) do add_keys(root, set) end
    for _, keyword in ipairs(words) do set[keyword] = true end
    path, separator, last = "", "", word
  else
    local before = options and options.before or ""
    local whole = before .. path
    local from = beginning(whole, #whole)
    local function step(value, key)
      local found = own and own(value, key)
      if found == nil then return child(value, key) end
      return found
    end
    local value = from and value_of(whole:sub(from), roots, step)
    if value == nil then return {} end
    local listed = names and names(value)
    if listed then
      for _, name in ipairs(listed) do set[name] = true end
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
