--- Our side as a worker, like peer.py: answers commands, one JSON text a line: {"time": steps}, {"memory": steps}.
---
---   perigee run tests/peers/ours.lua MODE THREADS DEVICE RECIPE [the recipe's options]
---
--- MODE: haste, repa, free, denoise
local core = require "perigee.core.ffi"
local devices = require "perigee.core.device"
local ffi = require "ffi"
local json = require "perigee.io.json"
local load = require("perigee.recipe.load").load
local profile = require "perigee.bench.profile"

local WARMUP = 3

local mode, threads, device, path = arg[1], tonumber(arg[2]), arg[3], arg[4]
core.check(core.C.pg_threads_set(threads))
local recipe, number = load(path, { arguments = { unpack(arg, 5) } }).value, nil
for k, stage in ipairs(recipe.stages) do
  if stage.name == (mode == "denoise" and "free" or mode) then number = k end
end
local run = profile.open(recipe, { synthetic = true, device = device, stage = assert(number, "no such mode") })
profile.seconds(run, WARMUP)

--- A sum over the bits of what is trained: equal after equal steps, whatever the number of threads.
local function digest()
  local crc = 0
  for _, group in ipairs(run.active_groups) do
    local here = group.parameters:to "cpu"
    crc = core.C.pg_crc32(crc, here:pointer(), here:bytes())
  end
  return ("%08x"):format(crc)
end

--- Of `each` steps together, `count` times. A GPU works on a step while the next one is queued, as in training: there
--- the steps are timed together and waited for at the end.
local function milliseconds(count, each)
  local elapsed, processor = json.array {}, json.array {}
  for k = 1, count do
    devices.synchronise(device)
    local start, work_start = core.C.pg_clock_seconds(), os.clock()
    profile.seconds(run, each)
    devices.synchronise(device)
    elapsed[k] = (core.C.pg_clock_seconds() - start) * 1e3 / each
    processor[k] = (os.clock() - work_start) * 1e3 / each
  end
  return { ms = elapsed, processor_ms = processor }
end

--- Peak bytes as a peer counts them: on the CPU of the process, on a GPU of what was allocated there. With
--- `device_bytes` what the GPU has in use in all.
local function memory(steps)
  profile.reset_peaks(device)
  profile.seconds(run, steps)
  devices.synchronise(device)
  local tensors, resident = profile.peaks(device)
  if device == "cpu" then return { bytes = resident, tensor_bytes = tensors } end
  local free, total = devices.memory(device)
  return { bytes = tensors, device_bytes = total - free }
end

local answer = {
  threads = core.C.pg_threads(), digest = digest(), version = ffi.string(core.C.pg_version()),
  isa = ffi.string(core.C.pg_cpu_isa()),
  device = ffi.string(core.C.pg_cpu_name()), gpu = device ~= "cpu" and devices.description(device) or nil,
}
while true do
  io.write(json.encode(answer), "\n")
  io.flush()
  local line = io.read()
  if not line then break end
  local command = json.decode(line)
  if not command.time then answer = memory(command.memory)
  elseif device == "cpu" then answer = milliseconds(command.time, 1)
  else answer = milliseconds(1, command.time) end
end
run:free()
