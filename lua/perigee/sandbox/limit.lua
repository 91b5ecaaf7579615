--- A limit on time and memory for code that a user types into a running trainer. A hook counts instructions and looks
--- at the clock; it raises in the user's own code, so that no library function is left half done, and it raises
--- again and again, so that no pcall can swallow it. Compiled code has no hooks, hence chunks from here run in the
--- interpreter. Memory is bounded by the allocator: what is too much is not given. No C function that could take long
--- can be called: sandbox/patterns.lua, strings.lua and lists.lua stand for those of Lua's.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local patterns = require "perigee.sandbox.patterns"
local strings = require "perigee.sandbox.strings"
local tensor = require "perigee.core.tensor"

local C = core.C
local getinfo, sethook, error, sub = debug.getinfo, debug.sethook, error, string.sub
jit.off(true, true) -- what runs in a hook is interpreted

local INSTRUCTIONS = 1000    -- between two looks at the clock
local LUA_MEMORY = 512 * 2 ^ 20 -- bytes that an evaluation may add
local TENSOR_MEMORY = 2 ^ 30 -- bytes of tensors that a client may hold
local WORK = 2e10            -- floating-point operations of an evaluation's ops

local M = { grace = 1 } -- seconds after the end of a limit from which on it raises in a library function too

local current -- the evaluation under way: { deadline, seconds, expired = message or false, inside, suspended, ... }

--- Is it code that a user typed? Its chunks are named so.
function M.is_users(source) return sub(source, 1, 6) == "=input" or sub(source, 1, 7) == "=policy" end

-- ---- memory -----------------------------------------------------------------------------------------------------

ffi.cdef [[
void perigee_lua_setallocf(void *L, void *(*allocate)(void *, void *, size_t, size_t), void *data)
  __asm__("lua_setallocf");
void *(*perigee_lua_getallocf(void *L, void **data) __asm__("lua_getallocf"))(void *, void *, size_t, size_t);
]]

local thread = coroutine.create(function() end) -- its address is a lua_State of this program
M.thread = thread -- so that it stays
local state = ffi.cast("void *", tonumber((tostring(thread):match "0x%x+")))
local bounded = ffi.new "pg_bounded_memory"
do
  local data = ffi.new "void *[1]"
  bounded.allocate = ffi.cast("void *", ffi.C.perigee_lua_getallocf(state, data))
  bounded.data = data[0]
end
local plain = ffi.cast("void *(*)(void *, void *, size_t, size_t)", bounded.allocate)
local counting = ffi.cast("void *(*)(void *, void *, size_t, size_t)", C.pg_bounded_allocate)

--- Bounds what Lua may allocate from now on; nil: no bound.
local function allow_memory(bytes)
  if not bytes then return ffi.C.perigee_lua_setallocf(state, plain, bounded.data) end
  bounded.left = bytes
  ffi.C.perigee_lua_setallocf(state, counting, bounded)
end

-- ---- time -------------------------------------------------------------------------------------------------------

--- The message of a limit that is over, or false.
local function look(limit)
  if not limit.expired and C.pg_clock_seconds() > limit.deadline then
    limit.expired = ("the evaluation was ended after %.2g s: the run waits for it"):format(limit.seconds)
  end
  return limit.expired
end

--- Is the evaluation itself under way, so that an error goes no further than that? A machine may stand still in the
--- few instructions before it begins and after it has ended.
local function is_inside(limit)
  for level = 3, math.huge do
    local info = getinfo(level, "f")
    if not info then return false end
    if info.func == limit.inside then return true end
  end
end

local function hook()
  local limit = current
  if not limit or not look(limit) then return end
  if M.is_users(getinfo(2, "S").source) then error(limit.expired, 0) end
  if C.pg_clock_seconds() > limit.deadline + M.grace and is_inside(limit) then error(limit.expired, 0) end
  sethook(hook, "", 1) -- at the first instruction back in the user's code
end

--- An error once the limit is over: for functions that catch errors on a user's behalf, and for long loops of the
--- sandbox's own.
function M.check()
  if current and look(current) then error(current.expired, 0) end
end
patterns.tick = M.check

-- ---- running ----------------------------------------------------------------------------------------------------

local string_class = debug.getmetatable ""

--- text:NAME in the user's code is a function of sandbox/strings.lua, in the library's one of Lua's.
local function string_method(_, name)
  local caller = getinfo(2, "S")
  return (caller and M.is_users(caller.source) and strings or string)[name]
end

--- Puts a limit in force, or none.
local function enter(limit)
  current = limit
  string_class.__index = limit and string_method or string
  tensor.allow(limit and limit.tensors)
  allow_memory(limit and limit.memory)
  if limit then sethook(hook, "", INSTRUCTIONS) else sethook() end
end

--- Takes what was used off a limit, before another one or none is in force.
local function leave(limit)
  if limit then limit.memory = tonumber(bounded.left) end
  sethook()
end

--- Runs what the trainer itself does on a user's request (a checkpoint, samples): the limit waits. An evaluation may
--- ask for that once.
function M.suspended(body, ...)
  local limit = current
  if not limit then return body(...) end
  if limit.suspended then core.fail "one line may ask for one checkpoint or one picture of samples" end
  limit.suspended = true
  local started = C.pg_clock_seconds()
  leave(limit)
  enter(nil)
  local function back(fine, ...)
    limit.deadline = limit.deadline + (C.pg_clock_seconds() - started)
    enter(limit)
    if not fine then error((...), 0) end
    return ...
  end
  return back(pcall(body, ...))
end

--- Calls a function as xpcall does, for at most `seconds`; within another limit, for no longer than that has left.
--- `held` is a table of the tensors that a client keeps (tensor.ledger).
---@param seconds number
---@param body function
---@param handler function
---@param held? table
---@return boolean fine, any ...
function M.run(seconds, body, handler, held)
  local outer = current
  leave(outer)
  enter(nil)
  local bytes = tensor.bytes_in(held or {})
  if bytes > TENSOR_MEMORY / 2 then -- some of it may be garbage
    collectgarbage()
    collectgarbage()
    bytes = tensor.bytes_in(held)
  end
  local limit = {
    deadline = C.pg_clock_seconds() + seconds, seconds = seconds, expired = false,
    memory = LUA_MEMORY, suspended = outer and outer.suspended,
    tensors = { bytes = TENSOR_MEMORY - bytes, work = WORK, held = held },
  }
  if outer then
    limit.deadline, limit.memory = math.min(limit.deadline, outer.deadline), math.min(LUA_MEMORY, outer.memory)
    limit.tensors = outer.tensors
  end
  local function done(...)
    local used = limit.memory
    leave(limit)
    if outer then outer.memory = math.max(0, outer.memory - (used - limit.memory)) end
    enter(outer)
    return ...
  end
  local function results(...) return ... end
  function limit.inside() return results(body()) end -- no tail call: it stays on the stack
  enter(limit)
  return done(xpcall(limit.inside, handler))
end

return M
