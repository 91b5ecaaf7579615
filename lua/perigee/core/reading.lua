--- Readings: numbers on their way from a device, which nobody waits for until they are wanted. On the CPU they are
--- there at once.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check

---@class perigee.Reading
local Reading = {}
Reading.__index = Reading

local M = {}
local pointer = ffi.new "pg_reading *[1]"
local host = ffi.new "const void *[1]"

--- Room for `count` numbers of one dtype.
---@return perigee.Reading
function M.new(device, dtype, count)
  check(C.pg_reading_new(pointer, core.device_code[device], count * core.dtype_bytes[dtype]))
  return setmetatable({ handle = ffi.gc(pointer[0], C.pg_reading_free), dtype = dtype, count = count }, Reading)
end

--- Queues the copy of a tensor's numbers to a place, from 1, and those after it.
function Reading:add(place, t)
  if t.dtype ~= self.dtype then core.fail("reading: a %s among numbers of %s", t.dtype, self.dtype) end
  check(C.pg_reading_add(self.handle, (place - 1) * core.dtype_bytes[self.dtype], tensor.handle(t)))
end

--- After the last.
function Reading:close() check(C.pg_reading_close(self.handle)) end

--- Waits, and returns the numbers in a list.
---@return number[]
function Reading:wait()
  check(C.pg_reading_wait(self.handle, host))
  local at = tensor.number_reader(ffi.cast("const " .. core.ctype[self.dtype] .. " *", host[0]), self.dtype)
  local list = {}
  for k = 1, self.count do list[k] = at(k - 1) end
  return list
end

function Reading:free()
  if self.handle then
    C.pg_reading_free(ffi.gc(self.handle, nil))
    self.handle = nil
  end
end

return M
