--- The cases of tests/ops on a device, forward and gradients, against the CPU's float64 (tests/lua/ops_harness.lua says
--- how). Needs no test framework. Prints one JSON text: { passed =, float64 = checks that need it, which stays on the
--- CPU, failed = [{ name, message }], missing = [kernels], theirs = checks of gradients whose every kernel that a
--- vendor's library may serve was the vendor's, ours_instead = those asked of the vendor (PERIGEE_<OP>=cudnn) in which
--- ours ran }.
---
---   perigee run tests/gpu/ops.lua DEVICE DTYPES FILE...        DTYPES: float32,bfloat16; FILE: tests/ops/matmul.lua
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local json = require "perigee.io.json"
local harness = dofile(core.home .. "/tests/lua/ops_harness.lua")

local device, dtypes = arg[1], {}
for dtype in arg[2]:gmatch "[^,]+" do dtypes[dtype] = true end
local result = { passed = 0, float64 = 0, failed = json.array {}, missing = json.array {} }
result.theirs, result.ours_instead = 0, 0
local missing = {}

-- a test hook of runtime/internal.h
ffi.cdef [[
  typedef struct { int64_t calls, captures, launches, theirs, ours_instead; } pg_queue_counts;
  void pg_queue_counted(pg_queue_counts *out);
]]
local counts = ffi.new "pg_queue_counts"

--- body(...), and whose kernels it ran.
local function count_served(body, ...)
  core.C.pg_queue_counted(counts)
  local theirs, instead = counts.theirs, counts.ours_instead
  local outcome = { pcall(body, ...) }
  core.C.pg_queue_counted(counts)
  if counts.ours_instead > instead then result.ours_instead = result.ours_instead + 1
  elseif counts.theirs > theirs then result.theirs = result.theirs + 1 end
  if not outcome[1] then error(outcome[2], 0) end
end

local function attempt(name, body, ...)
  local fine, message = pcall(body, ...)
  if fine then
    result.passed = result.passed + 1
    return
  end
  if tostring(message):find(("is not available on %s in float64"):format(device), 1, true) then
    result.float64 = result.float64 + 1
    return
  end
  local kernel = harness.missing_kernel(message)
  if kernel then missing[kernel] = true end
  table.insert(result.failed, { name = name, message = tostring(message) })
end

local function check(case)
  harness.validate(case)
  if case.error or case.check then return end
  for _, dtype in ipairs(case.dtypes or { "float32", "bfloat16" }) do
    if dtypes[dtype] then
      attempt(("%s, %s"):format(case.name, dtype), harness.forward, case, dtype, device)
      if case.gradients then
        attempt(("%s: gradients in %s"):format(case.name, dtype), count_served, harness.gradients, case, dtype, device)
      end
    end
  end
end

require("perigee.core.device").open(device)
for k = 3, #arg do
  for _, case in ipairs(dofile(arg[k])) do check(case) end
end
for kernel in pairs(missing) do table.insert(result.missing, kernel) end
table.sort(result.missing)
print(json.encode(result))
