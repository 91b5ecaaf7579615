--- The world of a console in a running trainer. The library is seen through read-only proxies:
--- userdata, so that neither rawset nor setmetatable reaches behind them. There is no ffi, debug, jit, io, os, require
--- or coroutine.
local core = require "perigee.core.ffi"
local limit = require "perigee.sandbox.limit"
local lists = require "perigee.sandbox.lists"
local lua = require "perigee.core.language"
local nearest = require "perigee.base.nearest"
local operand = require "perigee.core.operand"
local policy = require "perigee.record.policy"
local program = require "perigee.core.program"
local room = require "perigee.core.room"
local strings = require "perigee.sandbox.strings"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

local object_of = setmetatable({}, { __mode = "k" }) -- proxy -> what it stands for
local proxy_of = setmetatable({}, { __mode = "kv" }) -- and back
local real_of = setmetatable({}, { __mode = "k" })   -- wrapped library function -> the function

-- ---- records: objects with named properties and methods ----------------------------------------------------------

local function keys_of_both(a, b) return tables.sorted_keys(tables.merged(a, b)) end

--- A proxy with properties: `get` and `set` by name, `call` for methods, or `list` for numbered items.
---@param spec { name: string, get?: table<string, function>, set?: table<string, function>, call?: table<string,
---  function>, text?: function, length?: function, index?: function, missing?: fun(key: any): string? }
function M.record(spec)
  local get, set, call = spec.get or {}, spec.set or {}, spec.call or {}
  local proxy = newproxy(true)
  local class = getmetatable(proxy)
  class.__metatable = "read-only"
  function class.__index(_, key)
    if get[key] then return get[key]() end
    if call[key] then return call[key] end
    local value = spec.index and spec.index(key)
    if value == nil and not spec.index then
      local told = spec.missing and spec.missing(key)
      if told then core.fail("%s", told) end
      core.fail("%s has no '%s'%s", spec.name, tostring(key), nearest.hint(tostring(key), keys_of_both(get, call)))
    end
    return value
  end
  function class.__newindex(_, key, value)
    if not set[key] then
      local names = tables.sorted_keys(set)
      core.fail("%s.%s cannot be set%s", spec.name, tostring(key),
        #names > 0 and "; what can: " .. table.concat(names, ", ") or ": it is read-only")
    end
    set[key](value)
  end
  function class.__len() return spec.length and spec.length() or 0 end
  function class.__tostring()
    if spec.text then return spec.text() end
    return ("%s: %s"):format(spec.name, table.concat(keys_of_both(get, call), ", "))
  end
  object_of[proxy] = { record = spec, keys = function() return keys_of_both(get, call) end }
  return proxy
end

-- ---- wrapping ---------------------------------------------------------------------------------------------------

local wrap, unwrap

local MOST_PRINTED = 2 ^ 18 -- elements of a tensor that is printed, or becomes a table
local LONGEST = 2 ^ 16      -- bytes of a text that is compiled; the compiler's time may grow with their square
local MOST_NAMES = 1000     -- of a console's own that a hint looks at

local hidden = { free = true, save = true, pointer = true } -- and what changes a tensor in place
local fields = { dtype = true, device = true }

function M.wrap(x) return wrap(x, 1) end
function M.unwrap(x) return unwrap(x, 1) end

local function each(convert, ...)
  local list, n = { ... }, select("#", ...)
  for k = 1, n do list[k] = convert(list[k]) end
  return unpack(list, 1, n)
end

--- A function for the other world: its arguments are converted one way, its results the other.
local function between(f, arguments, results)
  return function(...) return each(results, f(each(arguments, ...))) end
end

--- A function of the library's for a console.
function M.wrapped_function(f)
  local through = between(f, M.unwrap, M.wrap)
  real_of[through] = f
  return through
end

local wrapped_function = M.wrapped_function

local template = newproxy(true) -- of tensors and symbolic values
local tensor_class = getmetatable(template)
local methods = setmetatable({}, { __mode = "v" })

function tensor_class.__index(proxy, key)
  local t = object_of[proxy]
  if key == "shape" or key == "strides" then return { unpack(t[key]) } end
  if fields[key] then return rawget(t, key) end
  if type(key) == "number" or type(key) == "table" or object_of[key] then return M.wrap(t[M.unwrap(key)]) end
  if type(key) ~= "string" or hidden[key] or key:sub(-1) == "_" or rawget(t, key) ~= nil then
    core.fail("a tensor has no method '%s' here", tostring(key))
  end
  if operand.properties[key] then return M.wrap(t[key]) end
  if key == "totable" and tensor.is_tensor(t) and t:numel() > MOST_PRINTED then
    core.fail("totable: %d elements; a console gives at most %d", t:numel(), MOST_PRINTED)
  end
  methods[key] = methods[key] or wrapped_function(function(self, ...) return self[key](self, ...) end)
  return methods[key]
end
function tensor_class.__newindex() core.fail "tensors are read-only in a console" end
function tensor_class.__tostring(proxy)
  local t = object_of[proxy]
  if not tensor.is_tensor(t) or t:numel() <= MOST_PRINTED then return tostring(t) end
  return ("%s %s on %s: too large to be printed here; x[...] takes a part"):format(t.dtype, core.shape_text(t.shape),
    t.device)
end
tensor_class.__metatable = "read-only"
for name, operator in pairs {
  __add = function(a, b) return a + b end, __sub = function(a, b) return a - b end,
  __mul = function(a, b) return a * b end, __div = function(a, b) return a / b end,
  __mod = function(a, b) return a % b end, __pow = function(a, b) return a ^ b end, __unm = function(a) return -a end,
} do tensor_class[name] = wrapped_function(operator) end

local function is_operand(x) return tensor.is_tensor(x) or program.is_value(x) end

--- A value of the library's as a console sees it: tensors, stops and signals as proxies, plain tables as copies, and
--- nothing else.
function wrap(x, depth)
  local kind = type(x)
  if kind == "nil" or kind == "boolean" or kind == "number" or kind == "string" then return x end
  if kind == "userdata" then return object_of[x] and x or nil end
  if kind ~= "table" or depth > 16 then return nil end
  if proxy_of[x] then return proxy_of[x] end
  local proxy
  if is_operand(x) then
    proxy = newproxy(template)
  elseif require("perigee.stops").is_stop(x) or require("perigee.signals").is_signal(x)
    or require("perigee.schedules").is_schedule(x) then
    proxy = M.record { name = x.kind, get = { kind = function() return x.kind end, name = function() return x.name end,
                                              text = function() return x.text end },
                       text = function() return x.text or ("signal.%s"):format(x.kind) end }
  else
    local result = {}
    for key, value in next, x do
      if type(key) == "string" or type(key) == "number" then result[key] = wrap(value, depth + 1) end
    end
    return result
  end
  object_of[proxy], proxy_of[x] = x, proxy
  return proxy
end

--- A console's value as the library gets it: what a proxy stands for, copies of tables, callbacks between the two
--- worlds; or, `as_typed`, functions as they are.
function unwrap(x, depth, as_typed)
  local kind = type(x)
  if kind == "userdata" then return object_of[x] end
  if kind == "function" then
    return real_of[x] or (as_typed and x) or between(x, M.wrap, M.unwrap)
  end
  if kind ~= "table" then return x end
  if depth > 16 then core.fail "a table that is nested too deeply" end
  local result = {}
  for key, value in next, x do result[key] = unwrap(value, depth + 1, as_typed) end
  return result
end

--- A namespace of library functions and of other namespaces.
local function namespace(name, members)
  local get, call = {}, {}
  for key, value in pairs(members) do
    if type(value) == "function" then call[key] = wrapped_function(value)
    else get[key] = function() return value end end
  end
  return M.record { name = name, get = get, call = call }
end

local function only_functions(t)
  local result = {}
  for key, value in pairs(t) do
    if type(value) == "function" then result[key] = value end
  end
  return result
end

-- ---- the library ------------------------------------------------------------------------------------------------

--- Stops get the user's functions themselves, for their source texts.
local function as_typed(x) return unwrap(x, 1, true) end

local function stop_namespace()
  local call = {}
  for _, kind in ipairs(room.names "perigee.stops") do
    call[kind] = between(function(...) return policy.make(kind, ...) end, as_typed, M.wrap)
  end
  return M.record { name = "stop", call = call }
end

--- The constructors of a room of the library.
local function room_namespace(name, module)
  local things, members = require(module), {}
  for _, kind in ipairs(room.names(module)) do members[kind] = things[kind] end
  return namespace(name, members)
end

local library

local function build_library()
  local pg = require "perigee"
  local ops = namespace("pg.ops", only_functions(pg.ops))
  local stop, signal = stop_namespace(), room_namespace("signal", "perigee.signals")
  local schedule = room_namespace("schedule", "perigee.schedules")
  local members = {
    is_tensor = pg.is_tensor, grad = pg.grad, version = pg.version, ops = ops, stop = stop, signal = signal,
    schedule = schedule,
  }
  for name, make in pairs(require "perigee.core.create") do members[name] = make end
  members.empty = nil -- shows what the memory held before
  return { ops = ops, stop = stop, signal = signal, schedule = schedule, pg = namespace("pg", members) }
end

-- ---- the language -----------------------------------------------------------------------------------------------

local function record_of(x)
  return type(x) == "userdata" and object_of[x] and rawget(object_of[x], "record") and object_of[x]
end

local function checked(...)
  limit.check()
  return ...
end

--- The tensor or value that a proxy stands for, or nil.
local function tensor_of(x)
  local object = object_of[x]
  return is_operand(object) and object or nil
end

local function language(environment, out)
  local made = setmetatable({}, { __mode = "k" }) -- metatables that this console set
  local own = {
    assert = assert, error = error, select = select, tostring = tostring, type = type,
    unpack = function(t, ...) return lua.unpack(tensor_of(t) or t, ...) end,
    rawequal = rawequal, rawget = rawget, rawset = rawset, _VERSION = _VERSION,
    math = tables.copy(math), string = tables.copy(strings), table = tables.copy(lists), bit = tables.copy(bit),
    next = function(t, key)
      if type(t) == "userdata" then core.fail "next: use pairs for what belongs to the run" end
      return next(t, key)
    end,
    ipairs = function(t)
      if type(t) ~= "userdata" or tensor_of(t) then return lua.ipairs(tensor_of(t) or t) end
      return function(_, k)
        local value = k < #t and t[k + 1] or nil
        if value ~= nil then return k + 1, value end
      end, t, 0
    end,
    pairs = function(t)
      local record = record_of(t)
      if not record then return pairs(t) end
      local k, keys = 0, record.keys()
      return function()
        k = k + 1
        if keys[k] ~= nil then return keys[k], t[keys[k]] end
      end
    end,
    tonumber = function(...)
      limit.check()
      return tonumber(...)
    end,
    pcall = function(f, ...) return checked(pcall(f, ...)) end,
    xpcall = function(f, handler, ...) -- the handler runs after the error: no hook reaches it while that is under way
      return (function(fine, ...)
        if fine then return true, ... end
        limit.check()
        return false, handler((...))
      end)(pcall(f, ...))
    end,
    getmetatable = function(x)
      local class = type(x) == "table" and debug.getmetatable(x)
      return class and made[class] and class or nil
    end,
    setmetatable = function(t, class)
      if type(t) ~= "table" then core.fail("setmetatable: expected a table, got a %s", type(t)) end
      if class ~= nil and type(class) ~= "table" then
        core.fail("setmetatable: expected a table, got a %s", type(class))
      end
      if class and rawget(class, "__gc") then core.fail "setmetatable: __gc is not possible here" end
      if class then made[class] = true end
      return setmetatable(t, class)
    end,
    loadstring = function(text, name)
      if type(text) ~= "string" then core.fail("loadstring: expected a string, got a %s", type(text)) end
      if #text > LONGEST then core.fail("loadstring: %d bytes; a console compiles at most %d", #text, LONGEST) end
      limit.check()
      local f, message = require("perigee.sandbox.chunk").compile(text, environment)
      return f, message
    end,
    print = function(...)
      local texts = {}
      for k = 1, select("#", ...) do texts[k] = tostring((select(k, ...))) end
      out(table.concat(texts, "\t") .. "\n")
    end,
  }
  own.math.random, own.math.randomseed = function(...) return math.random(...) end, nil
  return own
end

--- The library's names and some of a console's own.
local function names_of(base, environment)
  local names = tables.sorted_keys(base)
  for name in next, environment do
    if #names >= MOST_NAMES then break end
    names[#names + 1] = name
  end
  return names
end

--- A console's environment: the language, the library, and `extra` (run, student, ...). `out(text)` gets what is
--- printed.
function M.environment(extra, out)
  library = library or tensor.outlive(build_library)
  local environment = {}
  local base = tables.merged(language(environment, out), library, extra)
  base._G = environment
  setmetatable(environment, { __metatable = "read-only", __index = function(_, name)
    local value = base[name]
    if value == nil then
      core.fail("undefined variable '%s'%s", tostring(name),
        nearest.hint(tostring(name), names_of(base, environment)))
    end
    return value
  end })
  return environment, base
end

--- Names under an object, for completion; runs no code of the user's.
function M.names(x)
  local record = record_of(x)
  if record then return record.keys() end
  if type(x) == "userdata" and is_operand(object_of[x]) then
    local names = { "shape", "dtype", "device" }
    for _, list in ipairs { tensor.methods, operand.methods } do
      for name in pairs(list) do
        if not hidden[name] and name:sub(-1) ~= "_" then names[#names + 1] = name end
      end
    end
    return names
  end
  return nil
end

return M
