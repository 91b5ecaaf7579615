--- Our side of tests/peers/autoencoder: answers commands, one JSON text a line.
---
---   perigee run tests/peers/autoencoder.lua WEIGHTS PICTURES LATENTS FOLDER
---
--- WEIGHTS: of diffusers; PICTURES and LATENTS: .npy, of which everything is computed. {"save": true} writes mean.npy,
--- std.npy and decoded.npy to FOLDER; {"time": "encode"} or {"time": "decode"} gives milliseconds.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local json = require "perigee.io.json"
local npy = require "perigee.io.npy"
local pg = require "perigee"

local model = pg.models.autoencoder { weights = arg[1] }
model:materialise()
local inputs = { encode = npy.load(arg[2]), decode = npy.load(arg[3]) }
local run, bytes = {}, {}
for _, what in ipairs { "encode", "decode" } do
  local executable
  run[what], executable = pg.compile(function(x) return model[what](model, x) end, { inputs[what] })
  bytes[what] = executable.plan.arena_bytes
end

local commands = {}

function commands.save(_)
  local mean, std = run.encode(inputs.encode)
  npy.save(arg[4] .. "/mean.npy", mean)
  npy.save(arg[4] .. "/std.npy", std)
  npy.save(arg[4] .. "/decoded.npy", run.decode(inputs.decode))
  return {}
end

function commands.time(what)
  local start, work_start = core.C.pg_clock_seconds(), os.clock()
  local results = { run[what](inputs[what]) }
  local answer = { ms = (core.C.pg_clock_seconds() - start) * 1e3, processor_ms = (os.clock() - work_start) * 1e3 }
  for _, t in ipairs(results) do t:free() end
  return answer
end

local answer = { arena = bytes, isa = ffi.string(core.C.pg_cpu_isa()), device = ffi.string(core.C.pg_cpu_name()),
  threads = core.C.pg_threads() }
while true do
  io.write(json.encode(answer), "\n")
  io.flush()
  local line = io.read()
  if not line then break end
  local command = json.decode(line)
  for name, value in pairs(command) do answer = commands[name](value) end
end
