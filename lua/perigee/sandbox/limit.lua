--- A limit on time and memory for code that a user types into a running trainer: a hook that counts instructions. It
--- raises in the user's own code only, so that no library function is left half done, and it raises again and again, so
--- that no pcall can swallow it. Compiled code has no hooks, hence chunks from here run in the interpreter.
local core = require "perigee.core.ffi"
local strings = require "perigee.sandbox.strings"
local tensor = require "perigee.core.tensor"

local C = core.C
local getinfo, sethook, error = debug.getinfo, debug.sethook, error
jit.off(true, true) -- what runs in a hook is interpreted

local INSTRUCTIONS = 1000    -- between two looks at the clock
local LUA_MEMORY = 512 * 1024 -- KiB that an evaluation may add
local TENSOR_MEMORY = 2 ^ 30 -- bytes of tensors that an evaluation may make

local M = {}

local current -- the evaluation under way: { deadline, seconds, memory, expired = message or false }

--- Is it code that a user typed? Its chunks are named so.
function M.is_users(source) return source:sub(1, 6) == "=input" or source:sub(1, 7) == "=policy" end

local function hook()
  local state = current
  if not state then return end
  if not state.expired then
    if C.pg_clock_seconds() > state.deadline then
      state.expired = ("the evaluation was ended after %.2g s: the run waits for it"):format(state.seconds)
    elseif collectgarbage "count" > state.memory then
      state.expired = "the evaluation was ended: it took more than 512 MiB of Lua's memory"
    end
  end
  if state.expired then
    if M.is_users(getinfo(2, "S").source) then error(state.expired, 0) end
    sethook(hook, "", 1) -- at the first instruction back in the user's code
  end
end

--- An error once the limit is over: for functions that catch errors on a user's behalf.
function M.check()
  if current and current.expired then error(current.expired, 0) end
end

--- Runs what the trainer itself does on a user's request (a checkpoint, samples): the limit waits.
function M.suspended(body, ...)
  local state = current
  if not state then return body(...) end
  local string_class, allowance = debug.getmetatable "", tensor.allowance()
  local started = C.pg_clock_seconds()
  current = nil
  sethook()
  string_class.__index = string
  tensor.allow(nil)
  local function back(...)
    state.deadline = state.deadline + (C.pg_clock_seconds() - started)
    current = state
    string_class.__index = strings
    tensor.allow(allowance)
    sethook(hook, "", INSTRUCTIONS)
    if not ... then error(select(2, ...), 0) end
    return select(2, ...)
  end
  return back(pcall(body, ...))
end

--- Calls a function as xpcall does, for at most `seconds`.
---@return boolean fine, any ...
function M.run(seconds, body, handler)
  local outer, string_class, allowance = current, debug.getmetatable "", tensor.allowance()
  current = { deadline = C.pg_clock_seconds() + seconds, seconds = seconds,
    memory = collectgarbage "count" + LUA_MEMORY, expired = false }
  string_class.__index = strings
  tensor.allow(TENSOR_MEMORY)
  sethook(hook, "", INSTRUCTIONS)
  local function done(...)
    sethook()
    current = outer
    string_class.__index = outer and strings or string
    tensor.allow(allowance)
    if outer then sethook(hook, "", INSTRUCTIONS) end
    return ...
  end
  return done(xpcall(body, handler))
end

return M
