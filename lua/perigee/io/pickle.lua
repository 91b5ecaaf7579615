--- Python's pickles, protocols 2 to 5 (https://docs.python.org/3/library/pickletools.html), read without Python. What
--- comes out are numbers, texts, lists, dicts and what the caller makes of the few globals that it names; any other
--- global is refused by name. Nothing is executed, and the text is not trusted: a value takes memory in proportion to
--- the bytes that wrote it. Values may be shared and may contain themselves: whoever walks through them bounds the way.
local core = require "perigee.core.ffi"
local ffi = require "ffi"

local M = {}

local MAX_STACK = 100000 -- values that wait; Python writes batches of 1000

--- Python's None.
M.none = setmetatable({}, { __tostring = function() return "None" end })

-- ---- values -----------------------------------------------------------------------------------------------------

--- A list or tuple: its values by number, `n` of them.
---@class perigee.PickleList
---@field class "list"|"tuple"
---@field n integer
local List = {}
List.__index = List

--- A dict or object: its keys in order, and values by key.
---@class perigee.PickleDict
---@field class string  "dict", "OrderedDict", "argparse.Namespace", ...
---@field keys (string|number|boolean)[]
---@field values table
local Dict = {}
Dict.__index = Dict

function M.list(class) return setmetatable({ class = class or "list", n = 0 }, List) end
function M.dict(class) return setmetatable({ class = class or "dict", keys = {}, values = {} }, Dict) end
function M.is_list(x) return getmetatable(x) == List end
function M.is_dict(x) return getmetatable(x) == Dict end

function List:append(value)
  self.n = self.n + 1
  self[self.n] = value
end

function Dict:set(key, value)
  if self.values[key] == nil then self.keys[#self.keys + 1] = key end
  self.values[key] = value
end

function Dict:get(key) return self.values[key] end

-- ---- the reader -------------------------------------------------------------------------------------------------

--- A global: `call(arguments)` for a call, `new()` for an object made without one, `value` by itself.
---@class perigee.PickleGlobal
---@field call? fun(arguments: perigee.PickleList): any
---@field new? fun(): any
---@field value? any

local Reader = {}
Reader.__index = Reader

local Global = {} -- a global on the stack

function Reader:refuse(format, ...)
  core.fail("%s: a pickle that cannot be read: %s", self.path, format:format(...))
end

function Reader:take(bytes)
  local from, to = self.at, self.at + bytes - 1
  if to > #self.text then
    self:refuse("it ends within an instruction, at byte %d", #self.text)
  end
  self.at = to + 1
  return self.text:sub(from, to)
end

--- A whole number of so many bytes, little-endian.
function Reader:whole(bytes)
  local value, unit = 0, 1
  for _, digit in ipairs { self:take(bytes):byte(1, bytes) } do value, unit = value + digit * unit, unit * 256 end
  return value
end

--- A text whose length comes first, in so many bytes.
function Reader:counted(bytes) return self:take(self:whole(bytes)) end

function Reader:line()
  local ending = self.text:find("\n", self.at, true) or self:refuse "a line does not end"
  local line = self.text:sub(self.at, ending - 1)
  self.at = ending + 1
  return line
end

function Reader:push(value)
  if self.n >= MAX_STACK then self:refuse("more than %d values wait for their places", MAX_STACK) end
  self.n = self.n + 1
  self.stack[self.n] = value
end

--- The floor of the stack: what lies under the newest mark is out of reach.
function Reader:floor() return self.marks[#self.marks] or 0 end

function Reader:pop()
  if self.n <= self:floor() then self:refuse("an instruction at byte %d finds no value", self.at - 1) end
  local value = self.stack[self.n]
  self.stack[self.n], self.n = nil, self.n - 1
  return value
end

function Reader:top()
  if self.n <= self:floor() then self:refuse("an instruction at byte %d finds no value", self.at - 1) end
  return self.stack[self.n]
end

--- The values above the newest mark, as a list.
function Reader:marked(class)
  local first = self.marks[#self.marks] or self:refuse("no mark for the instruction at byte %d", self.at - 1)
  self.marks[#self.marks] = nil
  local list = M.list(class)
  for k = first + 1, self.n do
    list:append(self.stack[k])
    self.stack[k] = nil
  end
  self.n = first
  return list
end

function Reader:last(count, class)
  local list = M.list(class)
  list.n = count
  for k = count, 1, -1 do list[k] = self:pop() end
  return list
end

--- The global of a name, for `push`.
function Reader:global(module, name)
  if type(module) ~= "string" or type(name) ~= "string" then self:refuse "a global whose name is not a text" end
  local full = module .. "." .. name
  local known = self.globals[full] or self.find and self.find(full)
  if not known then
    core.fail("%s: it names the Python object %s, which is not read; of Python's objects only tensors, dicts, "
      .. "OrderedDict and argparse.Namespace are. In PyTorch, save model.state_dict()", self.path,
      (full:sub(1, 120):gsub("[%c\127-\255]", "?")))
  end
  if known.value ~= nil then return known.value end
  return setmetatable({ name = full, known = known }, Global)
end

function Reader:call(f, arguments, how)
  local make = getmetatable(f) == Global and f.known[how]
  if not make then
    self:refuse("a call of %s", getmetatable(f) == Global and f.name or "a value that is not a class")
  end
  if not M.is_list(arguments) then self:refuse("a call of %s without a tuple of arguments", f.name) end
  return make(arguments)
end

function Reader:append(list, value)
  if not M.is_list(list) or list.class ~= "list" then self:refuse "an element for a value that is not a list" end
  list:append(value)
end

local KEYS = { string = true, number = true, boolean = true }

function Reader:set(dict, key, value)
  if not M.is_dict(dict) then self:refuse "an entry for a value that is not a dict" end
  if not KEYS[type(key)] or key ~= key then self:refuse "a dict's key that is neither text, number nor boolean" end
  dict:set(key, value)
end

function Reader:set_all(dict, list)
  if list.n % 2 ~= 0 then self:refuse "a dict with a key that has no value" end
  for k = 1, list.n, 2 do self:set(dict, list[k], list[k + 1]) end
end

--- The state of an object: attributes, which are entries of a Namespace and of TorchScript's modules, and of no use in
--- an OrderedDict.
function Reader:build(object, state)
  if not M.is_dict(object) then self:refuse "a state for a value that is not an object" end
  if object.class == "OrderedDict" or state == M.none then return end
  if not M.is_dict(state) then self:refuse("a state of %s that is not a dict", object.class) end
  for _, key in ipairs(state.keys) do self:set(object, key, state.values[key]) end
end

function Reader:remember(number) self.memo[number] = self:top() end

function Reader:recall(number)
  local value = self.memo[number]
  if value == nil then self:refuse("value %d of its memo is wanted, which was never put there", number) end
  self:push(value)
end

--- A two's complement integer, little-endian; beyond 2^53 it is the nearest number.
local function signed(bytes)
  local value, unit = 0, 1
  for k = 1, #bytes do value, unit = value + bytes:byte(k) * unit, unit * 256 end
  if #bytes > 0 and bytes:byte(#bytes) >= 128 then value = value - unit end
  return value
end

local function double(bytes) -- big-endian
  return ffi.cast("const double *", ffi.cast("const char *", bytes:reverse()))[0]
end

-- ---- instructions -----------------------------------------------------------------------------------------------

local instructions = {}

local function define(byte, run) instructions[type(byte) == "string" and byte:byte() or byte] = run end

define(0x80, function(r)
  local protocol = r:whole(1)
  if protocol < 2 or protocol > 5 then r:refuse("protocol %d; 2 to 5 are known", protocol) end
end)
define(0x95, function(r) r:take(8) end) -- a frame: how much follows; of no use here
define("(", function(r)
  if #r.marks >= MAX_STACK then r:refuse("more than %d marks", MAX_STACK) end
  r.marks[#r.marks + 1] = r.n
end)
define("0", function(r) r:pop() end)
define("1", function(r) r:marked() end)
define("2", function(r) r:push(r:top()) end)

define("N", function(r) r:push(M.none) end)
define(0x88, function(r) r:push(true) end)
define(0x89, function(r) r:push(false) end)
define("J", function(r) r:push(signed(r:take(4))) end)
define("K", function(r) r:push(r:whole(1)) end)
define("M", function(r) r:push(r:whole(2)) end)
define(0x8a, function(r) r:push(signed(r:counted(1))) end)
define(0x8b, function(r) r:push(signed(r:counted(4))) end)
define("G", function(r) r:push(double(r:take(8))) end)

for byte, width in pairs { X = 4, T = 4, U = 1, B = 4, C = 1, [0x8c] = 1, [0x8d] = 8, [0x8e] = 8 } do
  define(byte, function(r) r:push(r:counted(width)) end)
end

define("]", function(r) r:push(M.list()) end)
define("l", function(r) r:push(r:marked "list") end)
define(")", function(r) r:push(M.list "tuple") end)
define("t", function(r) r:push(r:marked "tuple") end)
for count = 1, 3 do define(0x84 + count, function(r) r:push(r:last(count, "tuple")) end) end
define("}", function(r) r:push(M.dict()) end)
define("d", function(r)
  local list, dict = r:marked(), M.dict()
  r:set_all(dict, list)
  r:push(dict)
end)
define("a", function(r)
  local value = r:pop()
  r:append(r:top(), value)
end)
define("e", function(r)
  local list = r:marked()
  for k = 1, list.n do r:append(r:top(), list[k]) end
end)
define("s", function(r)
  local value, key = r:pop(), r:pop()
  r:set(r:top(), key, value)
end)
define("u", function(r)
  local list = r:marked()
  r:set_all(r:top(), list)
end)

define("q", function(r) r:remember(r:whole(1)) end)
define("r", function(r) r:remember(r:whole(4)) end)
define(0x94, function(r)
  r:remember(r.memoized)
  r.memoized = r.memoized + 1
end)
define("h", function(r) r:recall(r:whole(1)) end)
define("j", function(r) r:recall(r:whole(4)) end)

define("c", function(r)
  local module, name = r:line(), r:line()
  r:push(r:global(module, name))
end)
define(0x93, function(r)
  local name, module = r:pop(), r:pop()
  r:push(r:global(module, name))
end)
define("R", function(r)
  local arguments, f = r:pop(), r:pop()
  r:push(r:call(f, arguments, "call"))
end)
define(0x81, function(r)
  local arguments, f = r:pop(), r:pop()
  r:push(r:call(f, arguments, "new"))
end)
define("b", function(r)
  local state = r:pop()
  r:build(r:top(), state)
end)
define("Q", function(r)
  local id = r:pop()
  if not r.persistent then r:refuse "a persistent id" end
  r:push(r.persistent(id))
end)

---@class perigee.PickleOptions
---@field path string       for messages
---@field globals? table<string, perigee.PickleGlobal>  by full name, "collections.OrderedDict"
---@field find? fun(name: string): perigee.PickleGlobal?  further globals
---@field persistent? fun(id: any): any  what a persistent id stands for
---@field at? integer       where it begins, from 1: 1

--- Reads one pickle: its value, and the place after it.
---@param text string
---@param options perigee.PickleOptions
---@return any value
---@return integer after
function M.read(text, options)
  local r = setmetatable({
    text = text, at = options.at or 1, path = options.path, globals = options.globals or {}, find = options.find,
    persistent = options.persistent, stack = {}, n = 0, marks = {}, memo = {}, memoized = 0,
  }, Reader)
  while true do
    local code = r:whole(1)
    if code == 0x2e then break end
    local run = instructions[code]
    if not run then r:refuse("its byte %d is the instruction 0x%02x, which is not read", r.at - 1, code) end
    run(r)
  end
  local value = r:pop()
  if r.n > 0 then r:refuse "values are left over at its end" end
  return value, r.at
end

return M
