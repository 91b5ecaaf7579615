--- What a device is, and the rate that its matmul reaches (perigee.cost.machine), as `perigee bench` has it. Prints one
--- JSON text.
---
---   perigee run tests/gpu/about.lua DEVICE
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local devices = require "perigee.core.device"
local json = require "perigee.io.json"

local device = arg[1]
local rates = require("perigee.cost.machine").find(device)
local free, total = devices.memory(device)
print(json.encode {
  device = devices.description(device), free_bytes = free, total_bytes = total,
  matmul_flops_per_second = rates.bfloat16, float32_flops_per_second = rates.float32,
  bytes_per_second = rates.bandwidth,
  processor = ffi.string(core.C.pg_cpu_name()), isa = ffi.string(core.C.pg_cpu_isa()), threads = core.C.pg_threads(),
  version = ffi.string(core.C.pg_version()),
})
