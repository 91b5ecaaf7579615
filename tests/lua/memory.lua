--- What the CPU's memory is counted to be, for tests that compare it before and after.
local door = require "perigee.core.ffi"

local C = door.C
local M = {}

function M.collect()
  collectgarbage()
  collectgarbage()
end

--- Bytes that are held now, for one purpose or for all.
function M.held(purpose) return tonumber(C.pg_memory_now(C.PG_CPU, purpose and door.purpose_code[purpose] or -1)) end

--- The most bytes held since pg_memory_reset_peak.
function M.peak() return tonumber(C.pg_memory_peak(C.PG_CPU, -1)) end

--- Runs body(...) in a function of its own, so that no register of the caller's keeps what it left.
function M.without_trace(body, ...)
  body(...)
  M.collect()
end

return M
