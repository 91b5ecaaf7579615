--- Waiting for what another process holds.
local ffi = require "ffi"
local core = require "perigee.core.ffi"

ffi.cdef "int poll(void *descriptors, unsigned long count, int milliseconds);"

local M = {}

local INTERVAL = 200 -- milliseconds between attempts

--- What `attempt()` gives, once it gives something; `text` is shown where that isn't at once. Nil: interrupted.
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

return M
