--- A limit on time and memory for code that a user types into a running trainer. A hook counts instructions and looks
--- at the clock; it raises in the user's own code, so that no library function is left half done, and it raises
--- again and again, so that no pcall can swallow it. Compiled code has no hooks, hence chunks from here run in the
--- interpreter. Memory is bounded by the allocator: what is too much is not given, and what a client keeps over its
--- lines is counted in the client's name. No C function that could take long can be called: sandbox/patterns.lua,
--- strings.lua and lists.lua stand for those of Lua's.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local patterns = require "perigee.sandbox.patterns"
local program = require "perigee.core.program"
local strings = require "perigee.sandbox.strings"
local tensor = require "perigee.core.tensor"

local C = core.C
local getinfo, sethook, error, sub = debug.getinfo, debug.sethook, error, string.sub
jit.off(true, true) -- what runs in a hook is interpreted

local INSTRUCTIONS = 100      -- between two looks at the clock
local SLOW = 0.02             -- seconds between two looks after which each instruction is looked at
local LUA_MEMORY = 64 * 2 ^ 20 -- bytes that an evaluation may add
local LUA_KEPT = 64 * 2 ^ 20  -- bytes that a client may keep over its lines, and
local LUA_KEPT_BY_ALL = 256 * 2 ^ 20
local TENSOR_MEMORY = 2 ^ 30  -- bytes of tensors that a client may hold, and
local TENSOR_MEMORY_OF_ALL = 2 ^ 31
local WORK = 2e10             -- floating-point operations a second of an evaluation's ops, and at least so many
local UNBOUNDED = 2 ^ 60

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

local memory = C.pg_lua_memory_get() -- reading and writing its numbers makes no object
local installed = false

--- From the first evaluation on, all of Lua's memory passes through the runtime's allocator.
local function install()
  if installed then return end
  installed = true
  local thread = coroutine.create(function() end) -- its address is a lua_State of this program
  local state = ffi.cast("void *", tonumber((tostring(thread):match "0x%x+")))
  local data = ffi.new "void *[1]"
  memory.allocate = ffi.cast("void *", ffi.C.perigee_lua_getallocf(state, data))
  memory.data = data[0]
  memory.left = UNBOUNDED
  ffi.C.perigee_lua_setallocf(state, ffi.cast("void *(*)(void *, void *, size_t, size_t)", C.pg_lua_allocate), memory)
end

-- ---- clients ----------------------------------------------------------------------------------------------------

local clients = setmetatable({}, { __mode = "k" })

---@class perigee.LimitedClient
---@field owner integer  of its blocks of Lua's memory
---@field tensors table<perigee.Tensor, { bytes: number }>  those that it made, and what stands for their storage

--- A client, whose memory is counted over its evaluations.
---@return perigee.LimitedClient
function M.client()
  local taken, best = {}, nil
  for client in pairs(clients) do taken[client.owner] = true end
  for owner = 1, C.PG_LUA_OWNERS - 1 do -- the one with the least garbage of an earlier client
    if not taken[owner] and (not best or memory.held[owner] < memory.held[best]) then best = owner end
  end
  local client = { owner = best or core.fail "too many consoles", tensors = setmetatable({}, { __mode = "k" }) }
  clients[client] = true
  return client
end

--- Ends a client: what it holds is garbage from now on.
function M.release(client) clients[client] = nil end

local function kept_by_all()
  local sum = 0
  for owner = 1, C.PG_LUA_OWNERS - 1 do sum = sum + memory.held[owner] end
  return sum
end

--- Bytes of Lua's memory that a client keeps if those are too many, else nil.
---@param client perigee.LimitedClient
---@return number?
function M.keeps_too_much(client)
  local function too_much() return memory.held[client.owner] > LUA_KEPT or kept_by_all() > LUA_KEPT_BY_ALL end
  if not too_much() then return nil end
  collectgarbage() -- some of it may be garbage
  collectgarbage()
  return too_much() and memory.held[client.owner] or nil
end

--- Bytes of tensors that a client, or nobody, may still make.
local function tensors_left(client)
  if not client then return TENSOR_MEMORY end
  local function left()
    local all = 0
    for one in pairs(clients) do all = all + tensor.bytes_in(one.tensors) end
    return math.min(TENSOR_MEMORY - tensor.bytes_in(client.tensors), TENSOR_MEMORY_OF_ALL - all)
  end
  if left() < TENSOR_MEMORY / 2 then -- some of it may be garbage
    collectgarbage()
    collectgarbage()
  end
  return left()
end

-- ---- time -------------------------------------------------------------------------------------------------------

--- The message of a limit that is over, or false.
local function look(limit)
  if not limit.expired and C.pg_clock_seconds() > limit.deadline then
    limit.expired = ("the evaluation was ended after %.2g s: the run waits for it"):format(limit.seconds)
  end
  return limit.expired
end

--- Collects garbage, once half of what was left is used up: what an evaluation has dropped counts until then.
local function collect(limit)
  collectgarbage()
  memory.left = math.min(memory.left, LUA_MEMORY) -- some of it was others'
  limit.collect_at = memory.left / 2
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

--- Raises in the user's own code, later in the library's too.
local function hook()
  local limit, now = current, C.pg_clock_seconds()
  if not limit then return end
  if now <= limit.deadline then
    local every = now - limit.looked > SLOW and 1 or INSTRUCTIONS
    limit.looked = now
    if memory.left < limit.collect_at then collect(limit) end
    if every ~= limit.every then
      limit.every = every
      sethook(hook, "", every)
    end
    return
  end
  local left = memory.left
  memory.left = UNBOUNDED -- what follows makes objects
  local message = look(limit)
  local raises = M.is_users(getinfo(2, "S").source) or (now > limit.deadline + M.grace and is_inside(limit))
  if limit.every ~= 1 then sethook(hook, "", 1) end -- at the first instruction back in the user's code
  limit.every = 1
  memory.left = left
  if raises then error(message, 0) end
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
  if limit then
    limit.looked, limit.every = C.pg_clock_seconds(), INSTRUCTIONS
    sethook(hook, "", INSTRUCTIONS)
  else sethook() end
  memory.owner = limit and limit.owner or 0
  memory.left = limit and limit.memory or UNBOUNDED
end

--- Takes what was used off a limit, before another one or none is in force. Makes no object: there may be no memory.
local function leave(limit)
  sethook()
  if limit then limit.memory = memory.left end
  memory.left, memory.owner = UNBOUNDED, 0
end

--- Runs what must not be left half done: meanwhile there is no limit.
function M.whole(body, ...)
  local limit = current
  if not limit then return body(...) end
  leave(limit)
  enter(nil)
  local function back(fine, ...)
    enter(limit)
    if not fine then error((...), 0) end
    return ...
  end
  return back(pcall(body, ...))
end

--- Runs what the trainer itself does on a user's request (a checkpoint, samples): the limit waits. An evaluation may
--- ask for that once.
function M.suspended(body, ...)
  local limit = current
  if not limit then return body(...) end
  if limit.suspended then core.fail "one line may ask for one checkpoint or one picture of samples" end
  limit.suspended = true
  return M.whole(function(...)
    local started = C.pg_clock_seconds()
    local function back(fine, ...)
      limit.deadline = limit.deadline + (C.pg_clock_seconds() - started)
      if not fine then error((...), 0) end
      return ...
    end
    return back(pcall(body, ...))
  end, ...)
end

--- Calls a function as xpcall does, for at most `seconds`; within another limit, for no longer than that has left.
---@param seconds number
---@param body function
---@param handler function
---@param client? perigee.LimitedClient  in whose name memory is counted
---@return boolean fine, any ...
function M.run(seconds, body, handler, client)
  local outer = current
  leave(outer)
  enter(nil)
  install()
  local limit = {
    deadline = C.pg_clock_seconds() + seconds, seconds = seconds, expired = false, looked = 0, every = 0,
    memory = LUA_MEMORY, collect_at = LUA_MEMORY / 2, owner = client and client.owner or 0,
    suspended = outer and outer.suspended,
    tensors = { bytes = tensors_left(client), work = WORK * math.max(1, seconds), held = client and client.tensors },
  }
  if outer then
    limit.deadline, limit.memory = math.min(limit.deadline, outer.deadline), math.min(LUA_MEMORY, outer.memory)
    limit.tensors, limit.owner = outer.tensors, outer.owner
  end
  local before, scopes, open, trace = limit.memory, tensor.scopes(), #tensor.scopes(), program.current()
  local function done(...)
    leave(limit)
    if outer then outer.memory = math.max(0, outer.memory - (before - limit.memory)) end
    tensor.restore_scopes(scopes, open) -- an error may have come at any instruction of theirs
    program.restore(trace)
    enter(outer)
    return ...
  end
  local function results(...) return ... end
  function limit.inside() return results(body()) end -- no tail call: it stays on the stack
  enter(limit)
  return done(xpcall(limit.inside, handler))
end

return M
