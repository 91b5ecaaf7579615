--- Devices other than the CPU: opened when they are first asked for.
local ffi = require "ffi"
local core = require "perigee.core.ffi"

local C = core.C
local M = {}

--- Opens a device by name; an error says in one line why it can't be.
function M.open(name)
  local code = core.device_code[name]
  if not code then core.fail("unknown device '%s'; expected %s", tostring(name), core.devices_text) end
  core.check(C.pg_device_open(code))
  return code
end

--- Opens the device that the command line names, with an error that stands by itself.
---@param name string
function M.choose(name)
  local code = core.device_code[name]
  if not code then error(("--device %s: unknown device; expected %s"):format(name, core.devices_text), 0) end
  if C.pg_device_open(code) ~= 0 then error(("--device %s: %s"):format(name, ffi.string(C.pg_last_error())), 0) end
end

--- Is a device there, and does it compute in a dtype?
function M.computes(name, dtype)
  local code = core.device_code[name]
  return C.pg_device_open(code) == 0 and C.pg_device_has(code, core.dtype_code[dtype]) == 1
end

--- Do the chosen kernels multiply bfloat16 by the processor's own instructions? Their name says so.
function M.cpu_multiplies_bfloat16() return ffi.string(C.pg_cpu_isa()):find("bf16", 1, true) ~= nil end

--- A remark on computing in a dtype on a device, or nil: that bfloat16 saves memory there, and no time.
function M.remark(name, dtype)
  if dtype ~= "bfloat16" or name ~= "cpu" or M.cpu_multiplies_bfloat16() then return nil end
  return ("precision bf16: the kernels for this processor (%s) convert it to float32 and back, which is no faster than "
    .. "float32"):format(ffi.string(C.pg_cpu_isa()))
end

--- An error unless a device computes in a dtype.
function M.expect_dtype(name, dtype)
  M.open(name)
  if M.computes(name, dtype) then return end
  core.fail("device %s (%s) does not compute in %s: such programs (gradient checks) run on the CPU", name,
    M.description(name), dtype)
end

--- "NVIDIA H100 80GB HBM3, compute capability 9.0, ..."; "" for the CPU.
function M.description(name) return ffi.string(C.pg_device_description(core.device_code[name])) end

--- Free and total bytes.
function M.memory(name)
  local free, total = ffi.new "int64_t[1]", ffi.new "int64_t[1]"
  core.check(C.pg_device_memory(M.open(name), free, total))
  return tonumber(free[0]), tonumber(total[0])
end

function M.synchronise(name) core.check(C.pg_device_synchronise(M.open(name))) end

--- Bytes of tensors and arenas held on a device now.
function M.held(name) return tonumber(C.pg_memory_now(core.device_code[name], -1)) end

return M
