--- Waiting for what another process holds.
local ffi = require "ffi"
local core = require "perigee.core.ffi"

ffi.cdef "int poll(void *descriptors, unsigned long count, int milliseconds);"

local M = {}

local INTERVAL = 200 -- milliseconds between attempts

--- Waits until `attempt()` returns a value, and returns it; `text` is shown if that takes time. Nil: interrupted.
---@generic T
---@param run perigee.Run
---@param text string
---@param attempt fun(): T?
---@return T?
function M.wait(run, text, attempt)
  local got = attempt()
  if got == nil then run.progress:line("%s", text) end
  while got == nil and core.C.pg_signals_pending() == 0 do
    ffi.C.poll(nil, 0, INTERVAL)
    got = attempt()
  end
  return got
end

--- Waits for some seconds. False: a signal came.
---@param seconds number
---@return boolean
function M.pause(seconds)
  if core.C.pg_signals_pending() == 0 then ffi.C.poll(nil, 0, math.ceil(seconds * 1000)) end
  return core.C.pg_signals_pending() == 0
end

return M
