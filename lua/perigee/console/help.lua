--- Help from the annotations: the `---` comments above the library's functions. A name is looked up as Lua would, among
--- what is at hand and in the library; the function that is found says where its source is.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local module = require "perigee.nn.module"
local nearest = require "perigee.base.nearest"
local operand = require "perigee.core.operand"
local room = require "perigee.core.room"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

local LIBRARY, OPS = core.home .. "/lua/perigee/", "perigee.core.ops"
local WIDTH = 90 -- of what a list says of one name

-- ---- sources ----------------------------------------------------------------------------------------------------

local sources = {} -- path -> lines

local function lines_of(path)
  if not sources[path] then
    local lines = {}
    for line in (files.read(path) .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
    sources[path] = lines
  end
  return sources[path]
end

local function comment(line) return line and line:match "^%s*%-%-%-%s?(.*)$" end

--- The comment that ends above a line.
local function above(lines, number)
  local list = {}
  while comment(lines[number - 1]) do
    number = number - 1
    table.insert(list, 1, comment(lines[number]))
  end
  return list
end

--- The comment at a file's head.
local function head(lines)
  local list = {}
  for _, line in ipairs(lines) do
    if not comment(line) then break end
    list[#list + 1] = comment(line)
  end
  return list
end

--- The first sentence of a comment.
local function sentence(said)
  local text = {}
  for _, line in ipairs(said) do
    if line:match "^@" or line == "" then break end
    text[#text + 1] = line
  end
  text = table.concat(text, " ")
  return (text:match "^(.-%.)%s" or text:match "^(.-):%s" or text):gsub("[%.:]$", "")
end

local function path_of(name) -- of a Lua module
  local path = package.searchpath(name, package.path)
  return path
end

local function entry(path, number, said, arguments)
  return { said = said, arguments = arguments or "", place = path:gsub("^" .. core.home:gsub("%p", "%%%0") .. "/", "")
    .. (number and ":" .. number or "") }
end

local function arguments_at(line) return line:match "function[%s%w_%.:]*(%b())" end

--- Where a file defines a name, if there is a comment above it.
local function defined_in(path, key)
  local lines = lines_of(path)
  for number, line in ipairs(lines) do
    local name = line:match "^%s*function%s+[%w_%.:]-([%w_]+)%s*%(" or line:match "^local function%s+([%w_]+)"
      or line:match "^%s*M%.([%w_]+)%s*=" or line:match "^%s*([%w_]+)%s*=%s*function%s*%("
    if name == key and comment(lines[number - 1]) then
      return entry(path, number, above(lines, number), arguments_at(line))
    end
  end
end

--- What a file says that returns one thing: its head and the comment above `return function` or above a class's build.
local function of_file(path)
  local lines = lines_of(path)
  local said = head(lines)
  for number, line in ipairs(lines) do
    if line:match "^return function" or line:match "^function [%w_]+:build%(" then
      for _, text in ipairs(above(lines, number)) do said[#said + 1] = text end
      return entry(path, number, said, arguments_at(line))
    end
  end
  return entry(path, nil, said)
end

--- What is said at a function's definition, or of its name in the same file.
local function of_function(f, key)
  local info = debug.getinfo(f, "S")
  local path = info.source:match "^@(.*)$"
  if not path or path:sub(1, #LIBRARY) ~= LIBRARY then return nil end
  local lines = lines_of(path)
  local said = above(lines, info.linedefined)
  if #said > 0 then return entry(path, info.linedefined, said, arguments_at(lines[info.linedefined])) end
  return defined_in(path, key)
end

--- The head of the file that a function of the library is made in.
local function of_maker(f)
  local path = debug.getinfo(f, "S").source:match "^@(.*)$"
  return path and path:sub(1, #LIBRARY) == LIBRARY and entry(path, nil, head(lines_of(path))) or nil
end

-- ---- ops and methods --------------------------------------------------------------------------------------------

local INTERNAL = { accumulate = true, adamw = true, lion = true, gradient_fork = true }

local op_files -- name -> file, for ops and methods

local function file_of_op(name)
  if not op_files then
    op_files = {}
    for _, file in ipairs(room.names(OPS)) do
      local exported = require(OPS .. "." .. file)
      for key in pairs(exported) do op_files[key] = file end
      for key in pairs(exported.methods or {}) do op_files[key] = op_files[key] or file end
    end
    op_files.methods = nil
  end
  return op_files[name]
end

local function of_op(key)
  local file = file_of_op(key)
  local path = file and path_of(OPS .. "." .. file)
  return path and (defined_in(path, key) or entry(path, nil, head(lines_of(path))))
end

--- Names by the file that defines them, a line of what the file is about above them.
local function by_group(names)
  local groups, texts = {}, {}
  for _, name in ipairs(names) do
    local file = file_of_op(name)
    if file and not INTERNAL[file] and not name:match "_backward$" then
      groups[file] = groups[file] or {}
      table.insert(groups[file], name)
    end
  end
  for _, file in ipairs(tables.sorted_keys(groups)) do
    texts[#texts + 1] = ("%s\n    %s"):format(sentence(head(lines_of(path_of(OPS .. "." .. file)))),
      table.concat(groups[file], ", "))
  end
  return table.concat(texts, "\n")
end

local function of_tensors()
  return "Methods of tensors, x:NAME(...); :help x:NAME says more. x[1], x[{ {1, 3}, 2 }] and x[mask] index.\n"
    .. by_group(tables.sorted_keys(operand.methods)) .. "\nWhat they hold\n    shape, dtype, device, strides, "
    .. table.concat(tables.sorted_keys(tables.merged(operand.properties, tensor.methods)), ", ")
end

-- ---- values -----------------------------------------------------------------------------------------------------

local function titled(title, found)
  local arguments = found.arguments
  if title:find(":", 1, true) then arguments = arguments:gsub("^%(x, ", "("):gsub("^%(x%)", "()") end
  local lines = { ("%s%s    (%s)"):format(title, arguments, found.place) }
  for _, text in ipairs(found.said) do lines[#lines + 1] = "  " .. text end
  return table.concat(lines, "\n")
end

local function room_of(x)
  local class = type(x) == "table" and getmetatable(x)
  return type(class) == "table" and rawget(class, "module") or nil
end

--- A line for each name: what is said first of it.
local function listed(title, x, names)
  local lines, width = { title }, 0
  for _, name in ipairs(names) do width = math.max(width, #name) end
  for _, name in ipairs(names) do
    local fine, value = pcall(function() return x[name] end)
    local found = rawget(x, "documented") and defined_in(x.documented, name) or fine and (type(value) == "function"
      and of_function(value, name)
      or (room_of(x) and path_of(room_of(x) .. "." .. name) and of_file(path_of(room_of(x) .. "." .. name))))
    local said = found and sentence(found.said) or ""
    if #said > WIDTH then said = said:sub(1, WIDTH):match "^(.*)%s" .. " ..." end
    lines[#lines + 1] = (("  %-" .. width .. "s  %s"):format(name, said):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n")
end

--- The methods that a class has of its own and from nn.module.
local function methods_of(x)
  local names, class = {}, getmetatable(x)
  local index = class and rawget(class, "__index")
  for key, value in pairs(type(index) == "table" and index or {}) do
    if type(value) == "function" and key ~= "build" and not key:match "^__" then names[#names + 1] = key end
  end
  table.sort(names)
  return names
end

local function of_table(title, x)
  local class = getmetatable(x)
  if tensor.is_tensor(x) then return of_tensors() end
  if room_of(x) then return listed(title .. " has", x, class.names()) end
  if rawget(x, "documented") then return listed(title .. " has", x, x.names) end
  if module.is_module(x) then
    return listed(("%s is a %s of %d parameters; print(%s) shows its parts. Its methods:"):format(title, x.class_name,
      x:parameter_count(), title), x, methods_of(x)) .. "\n  and those of every module: parameters, freeze, ..."
  end
  if type(class) == "table" and rawget(class, "names") then return listed(title .. " has", x, class.names(x)) end
  if type(class) == "table" and #methods_of(x) > 0 then return listed(title .. " has", x, methods_of(x)) end
  local names = {}
  for key in pairs(x) do names[#names + 1] = type(key) == "string" and key or nil end
  table.sort(names)
  return listed(title .. " has", x, names)
end

local function of_library(pg)
  local made, other = tables.sorted_keys(require "perigee.core.create"), {}
  for name, value in pairs(pg) do
    if type(value) == "function" and not require("perigee.core.create")[name] then other[#other + 1] = name end
  end
  table.sort(other)
  return "pg.NAME; :help pg.NAME says more.\nParts\n    data, loss, models, nn, ops, optim, recipe, sampler, "
    .. "signal, stop, time, train\nNew tensors\n    " .. table.concat(made, ", ") .. "\nFunctions\n    "
    .. table.concat(other, ", ")
end

--- What is said of a value; nil where nothing is. `owner` has it under `key`.
local function of_value(title, value, owner, key)
  local pg = require "perigee"
  if rawequal(value, pg) then return of_library(pg) end
  if rawequal(value, pg.ops) then
    return "Ops, ops.NAME(...); most are methods of tensors too. :help ops.NAME says more.\n"
      .. by_group(tables.sorted_keys(pg.ops))
  end
  local family = room_of(owner)
  if family and path_of(family .. "." .. key) then return titled(title, of_file(path_of(family .. "." .. key))) end
  if type(value) == "function" then
    local found = of_function(value, key) or (file_of_op(key) and of_op(key)) or of_maker(value)
    return found and titled(title, found)
  end
  return type(value) == "table" and of_table(title, value) or nil
end

-- ---- names ------------------------------------------------------------------------------------------------------

--- The value of a name such as "run:attention", the table it is in and its key there.
local function looked_up(name, roots)
  local value, owner, last
  for position, key in name:gmatch "()([%w_]+)" do
    owner, last = value, key
    if position == 1 then
      for _, root in ipairs(roots) do
        if value == nil then value = rawget(root, key) end
      end
    elseif tensor.is_tensor(owner) then value = operand.methods[key] or tensor.methods[key]
    else
      local fine, found = pcall(function() return owner[key] end)
      value = fine and found or nil
    end
    if value == nil then return nil end
  end
  return value, owner, last
end

--- The tables of the library in which a name alone is looked for.
local function public()
  local pg = require "perigee"
  return { { "x:", operand.methods }, { "x:", tensor.methods }, { "ops.", pg.ops }, { "pg.", pg }, { "stop.", pg.stop },
    { "signal.", pg.signal }, { "loss.", pg.loss }, { "pg.data.", pg.data }, { "pg.models.", pg.models },
    { "pg.optim.", pg.optim }, { "pg.nn.", pg.nn }, { "pg.sampler.", pg.sampler }, { "pg.time.", pg.time } }
end

local function names_in(t) return room_of(t) and getmetatable(t).names() or tables.sorted_keys(t) end

--- Help about what the library has under a name in one place or another.
local function in_library(name)
  local last, all = name:match "([%w_]+)%s*$" or name, {}
  for _, place in ipairs(public()) do
    for _, known in ipairs(names_in(place[2])) do
      all[#all + 1] = known
      local value = known == last and place[2][known]
      local text = value and of_value(place[1] .. known, value, place[2], known)
      if text then return text end
    end
  end
  return ("nothing is said about '%s'%s"):format(name, nearest.hint(last, all))
end

--- A table that a file's comments describe, for objects that are not here: the names it defines.
---@param path string  under lua/perigee
function M.documented(path)
  local self = { documented = LIBRARY .. path, names = {} }
  for number, line in ipairs(lines_of(self.documented)) do
    local name = line:match "^%s*([%w_]+)%s*=%s*function%s*%("
    if name and comment(lines_of(self.documented)[number - 1]) then self.names[#self.names + 1] = name end
  end
  table.sort(self.names)
  return self
end

--- The class that a function's comment says it returns.
---@return string?
function M.returns(f)
  local found = of_function(f, "")
  for _, line in ipairs(found and found.said or {}) do
    local class = line:match "^@return%s+([%w_%.]+)"
    if class then return class end
  end
end

--- What is said about a name: "stop.gradient_angle", "run:loss", "x:narrow", "ops", "tensor", "narrow".
---@param name string
---@param roots? table[]  what is at hand, by name
---@return string
function M.text(name, roots)
  name = name:gsub("%s", ""):gsub("%(.*$", "")
  if name == "tensor" or name == "tensors" then return of_tensors() end
  local value, owner, key = looked_up(name, roots or {})
  if owner == nil and type(value) == "table" and rawget(value, "documented") then return of_table(name, value) end
  local first, rest = name:match "^([%w_]+)[%.:]([%w_]+)$"
  local object = first and looked_up(first, roots or {})
  if type(object) == "table" and rawget(object, "documented") then
    local found = defined_in(object.documented, rest)
    if found then return titled(name, found) end
  end
  return value ~= nil and of_value(name, value, owner, key) or in_library(name)
end

return M
