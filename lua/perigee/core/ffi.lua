--- The door to libperigee.so: the headers read verbatim, dtypes by name, and the one place where a status becomes an
--- error.
local ffi = require "ffi"
local list = require "perigee.core.list"

local M = {}

M.home = require "perigee.core.home"

local function read(path)
  local file, message = io.open(path, "rb")
  if not file then error("perigee: cannot read " .. message, 0) end
  local text = file:read "*a"
  file:close()
  return text
end

ffi.cdef(read(M.home .. "/base/types.h"))
ffi.cdef(read(M.home .. "/runtime/perigee.h"))

local build = os.getenv "PERIGEE_BUILD" or M.home .. "/build"
local library = os.getenv "PERIGEE_LIBRARY" or build .. "/runtime/libperigee.so"
local found, C = pcall(ffi.load, library)
if not found then
  error("perigee: " .. library .. " cannot be loaded (run ./perigee once to build it): " .. tostring(C), 0)
end
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

--- While a recipe is loaded, the place of its last line: `return pg.recipe { ... }` is a tail call, which leaves no
--- trace of its own.
M.tail_position = false

--- Source position of the first caller outside the library: "recipe.lua:12", or nil.
function M.user_position()
  local library_root = M.home .. "/lua/perigee/"
  for level = 2, 200 do
    local info = debug.getinfo(level, "Sl")
    if not info then return M.tail_position or nil end
    local file = info.source:match "^@(.*)$"
    if info.what ~= "C" and info.currentline > 0 and not (file and file:sub(1, #library_root) == library_root) then
      return (file or info.short_src) .. ":" .. info.currentline
    end
  end
end

--- Raises an error at the user's own line: a mistake in a recipe or at the REPL, not in the library.
function M.fail(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  local position = M.user_position()
  error(position and position .. ": " .. message or message, 0)
end

--- Turns a status into an error that carries the C side's message. `last_status` keeps the status of the newest one.
function M.check(status)
  if status == 0 then return end
  M.last_status = status
  M.fail("%s", ffi.string(C.pg_last_error()))
end

function M.shape_text(shape) return "[" .. table.concat(shape, ",") .. "]" end

return M
