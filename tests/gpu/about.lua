--- What a device is, and the rate that its matmul reaches: of square bfloat16 matrices, random numbers, the best of
--- five rounds. Prints one JSON text.
---
---   perigee run tests/gpu/about.lua DEVICE SIZE
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local devices = require "perigee.core.device"
local json = require "perigee.io.json"
local tensor, ops = require("perigee.core").tensor, require("perigee.core").ops

local ROUNDS, CALLS = 5, 10

local device, n = arg[1], tonumber(arg[2])
devices.choose(device)
local free, total = devices.memory(device)

local function matrix(seed)
  return ops.random_normal({ n, n },
    { state = tensor.tensor({ seed, 0, 0 }, "int64"), purpose = "matrix" }):to("bfloat16"):to(device)
end

local rate = tensor.tidy(function()
  local a, b, best = matrix(1), matrix(2), math.huge
  for _ = 0, ROUNDS do -- the first one warms up
    devices.synchronise(device)
    local start = core.C.pg_clock_seconds()
    for _ = 1, CALLS do a:matmul(b):free() end
    devices.synchronise(device)
    best = math.min(best, (core.C.pg_clock_seconds() - start) / CALLS)
  end
  return 2 * n ^ 3 / best
end)
print(json.encode {
  device = devices.description(device), free_bytes = free, total_bytes = total, matmul_flops_per_second = rate,
  matmul_size = n,
  processor = ffi.string(core.C.pg_cpu_name()), isa = ffi.string(core.C.pg_cpu_isa()), threads = core.C.pg_threads(),
  version = ffi.string(core.C.pg_version()),
})
