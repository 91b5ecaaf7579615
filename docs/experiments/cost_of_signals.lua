--- What signals cost: steps with and without those that are recorded into the step, by turns, and readings of others,
--- in processor time.
---
---   ./perigee run docs/experiments/cost_of_signals.lua [RECIPE [PAIRS [NAME=VALUE ...]]]
---
--- Prints for each list of signals the mean of the pairs' quotients of time, in percent, ± its standard error; and how
--- many steps a reading takes after the first. One thread, so that processor time is the step's.
local core = require "perigee.core.ffi"
local load = require "perigee.recipe.load"
local pg = require "perigee"
local Run = require "perigee.train.run"

local words = { ... }
local path, pairs_wanted = words[1] or "docs/experiments/shapes.lua", tonumber(words[2]) or 40
local values = {}
for k = 3, #words do
  local name, value = words[k]:match "^([^=]+)=(.*)$"
  values[name] = tonumber(value) or value
end
core.check(core.C.pg_threads_set(1))

local function started(signals)
  local recipe = load.load(path, { values = values }).value
  recipe.stages[1].signals = signals
  local run = Run.new(recipe, { train = require("perigee.train").train })
  run:build_stage()
  for _ = 1, 3 do run:advance() end
  return run
end

local function seconds(run)
  local before = os.clock()
  run:advance()
  return os.clock() - before
end

local signal = pg.signal
local lists = {
  { "the same again" },
  { "stream_angle", signal.stream_angle { every = 50 } },
  { "loss_by_time of denoise", signal.loss_by_time { "denoise" } },
  { "loss_by_time of features", signal.loss_by_time { "features" } },
  { "all three", signal.stream_angle(), signal.loss_by_time { "denoise" }, signal.loss_by_time { "features" } },
}
local plain = started {}
for _, list in ipairs(lists) do
  local run = started { unpack(list, 2) }
  local sum, squares, total = 0, 0, 0
  for k = 1, pairs_wanted do
    local a, b
    if k % 2 == 0 then a, b = seconds(plain), seconds(run)
    else
      b = seconds(run)
      a = seconds(plain)
    end
    local quotient = math.log(b / a)
    sum, squares, total = sum + quotient, squares + quotient ^ 2, total + a
  end
  local mean = sum / pairs_wanted
  local spread = math.sqrt((squares / pairs_wanted - mean ^ 2) / (pairs_wanted - 1))
  print(("%-26s %+.2f ± %.2f %%, a step without takes %.1f ms"):format(list[1], 100 * mean, 100 * spread,
    1e3 * total / pairs_wanted))
  run:free()
end
local signals = require "perigee.signals"
local others = {
  signal.holistic_angle(), signal.alignment_progress(), signal.gradient_norms(), signal.average_distance(),
}
plain:free()
for _, one in ipairs(others) do
  local run = started { one }
  signals.measure({ one }, run, run.signal_state)
  local reading, step = 0, 0
  for _ = 1, math.ceil(pairs_wanted / 4) do
    step = step + seconds(run)
    local before = os.clock()
    signals.measure({ one }, run, run.signal_state)
    reading = reading + os.clock() - before
  end
  print(("a reading of %-24s takes as long as %.2f steps"):format(one.name, reading / step))
  run:free()
end
