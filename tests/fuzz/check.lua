--- Runs readers on inputs, for lua_driver.c and for readers_spec.lua. A reader is a file of readers/:
---
---   return { file = "x.json",                    -- the input is a file of this name; nil: a text
---            beside = { ["y.json"] = "{}" },     -- further files in its folder
---            read = function(text, path) ... end }
---
--- What it reads is a value or an error. The error is one text, names the file where there is one, and is no defect of
--- Perigee's own: no failed arithmetic, no traceback, no position in the library.
local ffi = require "ffi"

local M = { home = require "perigee.core.home" }

ffi.cdef [[
void fuzz_reading(int begins);
int getpid(void);
]]
local is_driver, reading = pcall(function() return ffi.C.fuzz_reading end)
if not is_driver then reading = function() end end

local Broken = { __tostring = function(broken) return broken.what end }

--- What a reader does must hold.
function M.demand(condition, format, ...)
  if not condition then error(setmetatable({ what = format:format(...) }, Broken), 0) end
end

-- what Lua itself and a failed assertion say begins so; an input may have such words further on
local DEFECTS = { "^attempt to ", "^bad argument", "^stack overflow", "^not enough memory", "^table overflow",
  "^error in error handling", "^string length overflow", "^C stack overflow" }

--- What is wrong with an error of a reader, or nil.
local function wrong(message, path)
  if getmetatable(message) == Broken then return message.what end
  if type(message) ~= "string" then return ("the error is a %s"):format(type(message)) end
  local rest = message:gsub("^" .. M.home:gsub("%p", "%%%0") .. "/tests/fuzz/readers/%l+%.lua:%d+: ", "")
  local defect = rest:find(M.home .. "/lua/perigee/", 1, true) == 1 or rest:find("\nstack traceback:", 1, true)
  for _, pattern in ipairs(DEFECTS) do defect = defect or rest:find(pattern) end
  if defect then return "the error is a defect: " .. message end
  if path and not message:find(path, 1, true) then return "the error does not name the file: " .. message end
end

local function put(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

--- The function that runs a reader on one input; it raises what is wrong.
---@param file string
---@return fun(text: string)
function M.open(file)
  local reader = assert(loadfile(file))()
  local folder, path
  if reader.file then
    folder = ("/dev/shm/perigee-fuzz-%d"):format(ffi.C.getpid())
    path = folder .. "/" .. reader.file
    os.execute("mkdir -p " .. folder)
    M.folders = M.folders or {}
    M.folders[folder] = true
    for name, text in pairs(reader.beside or {}) do put(folder .. "/" .. name, text) end
  end
  return function(text)
    if path then put(path, text) end
    reading(1)
    local fine, message = pcall(reader.read, text, path)
    reading(0)
    local problem = not fine and wrong(message, path)
    if problem then error(problem, 0) end
  end
end

--- Removes the folders of files.
function M.close()
  for folder in pairs(M.folders or {}) do os.execute("rm -rf " .. folder) end
end

return M
