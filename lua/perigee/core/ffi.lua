--- The door to libperigee.so: the headers read verbatim, dtypes by name, and the one place where a status becomes an
--- error.
local failure = require "perigee.base.failure"
local ffi = require "ffi"
local list = require "perigee.core.list"
local whole_file = require "perigee.base.whole_file"

local M = {}

M.home = require "perigee.core.home"

local function read(path)
  local text, message = whole_file.read(path)
  return text or error("perigee: cannot read " .. message, 0)
end

ffi.cdef(read(M.home .. "/base/types.h"))
ffi.cdef(read(M.home .. "/runtime/perigee.h"))

require("perigee.core.waiting").prepare()

local build = os.getenv "PERIGEE_BUILD" or M.home .. "/build"
local library = os.getenv "PERIGEE_LIBRARY" or build .. "/runtime/libperigee.so"
local found, C = pcall(ffi.load, library)
if not found then
  error("perigee: " .. library .. " cannot be loaded (run ./perigee once to build it): " .. tostring(C), 0)
end
require("perigee.core.waiting").begin(C)
M.C = C
if C.pg_device_open(C.PG_CPU) ~= 0 then error(ffi.string(C.pg_last_error()), 0) end

local dtypes = list.read("base/dtypes.h", { "PG_FLOATING_DTYPES", "PG_INTEGER_DTYPES" })
M.dtypes, M.dtype_code = dtypes.names, dtypes.number
M.dtype_bytes, M.is_floating, M.ctype = {}, {}, {}
for name, columns in pairs(dtypes.columns) do
  M.ctype[name] = columns[2]
  M.dtype_bytes[name] = ffi.sizeof(columns[2])
  M.is_floating[name] = name:find "float" ~= nil
end

M.device_code, M.device_names = {}, {}
for code = 0, C.PG_DEVICES - 1 do
  local name = ffi.string(C.pg_device_name(code))
  M.device_code[name], M.device_names[code + 1] = code, name
end
M.devices_text = table.concat(M.device_names, " or ")
M.purpose_code = {}
for code = 0, C.PG_PURPOSES - 1 do M.purpose_code[ffi.string(C.pg_purpose_name(code))] = code end

local position = false -- of errors that no line of the user's leads to
local calls = 0        -- of M.at under way

--- Calls a function. Errors in it stand at the user's own line where one leads to them, and else at this position:
--- `return pg.recipe { ... }`, for instance, is a tail call, which leaves no trace, and a loss that is checked before a
--- run was written long ago.
---@param place? string|false  "recipe.lua:12"; nil or false: as outside
---@param f function
---@return any ...  what f returns
function M.at(place, f, ...)
  local outer = position
  position = place or outer
  calls = calls + 1
  local results = { xpcall(f, M.handler, ...) }
  calls, position = calls - 1, outer
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

--- The line outside the library that leads to the caller, as far out as M.at: "recipe.lua:12", or nil.
local function users_line()
  local library_root = M.home .. "/lua/perigee/"
  for level = 2, 200 do
    local info = debug.getinfo(level, "Slf")
    if not info or (info.func == M.at and position) then return nil end
    local file = info.source:match "^@(.*)$"
    if info.what ~= "C" and info.currentline > 0 and not (file and file:sub(1, #library_root) == library_root) then
      return (file or info.short_src) .. ":" .. info.currentline
    end
  end
end

--- Source position of the first caller outside the library: "recipe.lua:12", or nil.
function M.user_position() return users_line() or position or nil end

--- A message handler for xpcall, as failure.handler is. A recipe, a model or a loss that hands the library something it
--- cannot work with, a nil for instance, is told its own line, not shown the library's stack.
function M.handler(message)
  if calls > 0 and not failure.is_users(message) and not os.getenv "PERIGEE_TRACEBACK" and type(message) == "string"
    and not message:find("\n", 1, true) then
    local line = users_line()
    local place, text = message:match "^[^\n]-lua/perigee/([^\n:]*:%d+): (.*)$"
    if line and place then
      return ("%s: %s in %s; %s"):format(line, text, place, text:find("'self'", 1, true)
        and "call a method with a colon: object:method()" or "is an argument missing, or of another kind?")
    end
  end
  return failure.handler(message)
end

--- Raises an error at the user's own line: a mistake in a recipe or at the REPL, not in the library.
function M.fail(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  local place = M.user_position()
  error(place and place .. ": " .. message or message, 0)
end

--- Turns a status into an error that carries the C side's message. `last_status` keeps the status of the newest one.
function M.check(status)
  if status == 0 then return end
  M.last_status = status
  M.fail("%s", ffi.string(C.pg_last_error()))
end

function M.shape_text(shape) return "[" .. table.concat(shape, ",") .. "]" end

return M
