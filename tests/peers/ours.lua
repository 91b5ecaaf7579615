--- Our side as a worker, like peer.py: answers commands, one JSON text a line: {"time": steps}, {"memory": steps}.
---
---   perigee run tests/peers/ours.lua MODE THREADS DEVICE RECIPE [the recipe's options]     MODE: haste, repa, free, denoise
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local json = require "perigee.io.json"
local load = require("perigee.recipe_options").load
local profile = require "perigee.train.profile"

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
    crc = core.C.pg_crc32(crc, group.parameters:pointer(), group.parameters:bytes())
  end
  return ("%08x"):format(crc)
end

local function milliseconds(count)
  local elapsed, processor = json.array {}, json.array {}
  for k = 1, count do
    local start = os.clock()
    elapsed[k] = profile.seconds(run, 1)[1] * 1e3
    processor[k] = (os.clock() - start) * 1e3
  end
  return { ms = elapsed, processor_ms = processor }
end

local answer = {
  threads = core.C.pg_threads(), digest = digest(), version = ffi.string(core.C.pg_version()), isa = ffi.string(core.C.pg_cpu_isa()),
  device = ffi.string(core.C.pg_cpu_name()),
}
while true do
  io.write(json.encode(answer), "\n")
  io.flush()
  local line = io.read()
  if not line then break end
  local command = json.decode(line)
  if command.time then answer = milliseconds(command.time)
  else
    profile.reset_peaks()
    profile.seconds(run, command.memory)
    local tensors, resident = profile.peaks()
    answer = { bytes = resident, tensor_bytes = tensors }
  end
end
run:free()
