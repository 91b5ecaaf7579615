--- What a device does in a step: after two steps of a stage nothing is queued call by call or captured, and a step is
--- one launch of a graph, in pieces too, and when the learning rate, a loss's weight and the EMA decay change. Prints
--- one JSON text.
---
---   perigee run tests/gpu/graph.lua DEVICE STEPS RECIPE [the recipe's options]
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local json = require "perigee.io.json"
local load = require("perigee.recipe.load").load
local profile = require "perigee.bench.profile"

local device, steps, path = arg[1], tonumber(arg[2]), arg[3]
local recipe = load(path, { arguments = { unpack(arg, 4) } }).value
local run = profile.open(recipe, { device = device })
-- a test hook of runtime/internal.h
ffi.cdef [[
  typedef struct { int64_t calls, captures, launches, theirs, ours_instead; } pg_queue_counts;
  void pg_queue_counted(pg_queue_counts *out);
]]
local counts = ffi.new "pg_queue_counts"

--- Queued since the last time: calls one by one, captures, launches of graphs.
local function queued()
  local before = { calls = tonumber(counts.calls), captures = tonumber(counts.captures),
    launches = tonumber(counts.launches) }
  core.C.pg_queue_counted(counts)
  local since = {}
  for key, value in pairs(before) do since[key] = tonumber(counts[key]) - value end
  return since
end

local result = json.array {}
for number, stage in ipairs(recipe.stages) do
  if number > 1 then run:enter_stage(number) end
  queued()
  profile.seconds(run, 2) -- call by call, then captured
  local first = queued()
  for step = 1, steps do
    run.optim.lr, run.ema, run.stage.losses[1].weight = 1e-4 / step, 0.9 + 0.01 / step, 1 / step
    profile.seconds(run, 1)
  end
  local rest = queued()
  result[number] = { stage = stage.name, steps = steps, first = first, rest = rest }
end
run:free()
print(json.encode(result))
