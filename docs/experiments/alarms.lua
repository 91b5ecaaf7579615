--- Statistics of stop.stream_angle by simulation: how often it ends a stage by mistake, and how soon it sees a change.
---
---   ./perigee run docs/experiments/alarms.lua [RUNS]
---
--- A reading is over 50 steps of 16 images in 8 bins, 400 samples in the 4 bins that are read; cosines are normal with
--- a spread of 0.1, as on CIFAR-10, or two-valued (+-0.1), and their mean is 0 up to reading 40 and `mean` afterwards.
local pg = require "perigee"

local RUNS = tonumber((...)) or 400
local READINGS, CHANGE, SAMPLES, SPREAD = 200, 40, 100, 0.1

local function normal()
  return math.sqrt(-2 * math.log(1 - math.random())) * math.cos(2 * math.pi * math.random())
end
local function two_valued() return math.random() < 0.5 and -1 or 1 end

local function bin(mean, draw)
  local sum, squares = 0, 0
  for _ = 1, SAMPLES do
    local x = mean + SPREAD * draw()
    sum, squares = sum + x, squares + x * x
  end
  local average = sum / SAMPLES
  return { count = SAMPLES, mean = average,
    error = math.sqrt(math.max(squares / SAMPLES - average ^ 2, 0) / (SAMPLES - 1)) }
end

--- The reading at which the stop ends one simulated run, or nil.
local function ends(stop, mean, draw)
  local state = stop:initial()
  for k = 1, READINGS do
    local bins = {}
    for b = 1, 4 do bins[b] = bin(k > CHANGE and mean or 0, draw) end
    local done, after = stop:decide({ step = k, stream_angle = { bins = bins } }, state)
    if done then return k end
    state = after
  end
end

math.randomseed(1)
print(("%d runs of %d readings; the change comes after reading %d"):format(RUNS, READINGS, CHANGE))
print "cosines     alarm   mean     ended early   ended   delay, readings (median, 90 %)"
for name, draw in pairs { normal = normal, ["two-valued"] = two_valued } do
  for _, alarm in ipairs { 0.05, 0.2 } do
    for _, mean in ipairs { 0, -0.002, -0.005, -0.01, -0.05 } do
      local stop = pg.stop.stream_angle { alarm = alarm, take = { 1, 2, 3, 4 } }
      local early, late, delays = 0, 0, {}
      for _ = 1, RUNS do
        local k = ends(stop, mean, draw)
        if k and (k <= CHANGE or mean == 0) then early = early + 1
        elseif k then
          late, delays[#delays + 1] = late + 1, k - CHANGE
        end
      end
      table.sort(delays)
      local function at(share) return delays[math.max(1, math.ceil(share * #delays))] or "-" end
      print(("%-11s %5.2f  %6.3f   %6.2f %%     %5.1f %%   %s, %s"):format(name, alarm, mean, 100 * early / RUNS,
        100 * late / RUNS, at(0.5), at(0.9)))
    end
  end
end
