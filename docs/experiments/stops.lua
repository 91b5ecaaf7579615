--- When would the gradient-angle trigger have ended the alignment? Replays the rule "the mean over the times is below a
--- threshold" over a run that recorded angles (`recipes/cifar10_study.lua --set record=100`), for every block recorded
--- and a range of times, thresholds and cadences, and prints a Markdown table of steps; `-` is never. Then the
--- readings' spread.
---
---   perigee run docs/experiments/stops.lua RUN [FIRST_STEP]
local Events = require "perigee.record.events"

local run, from = arg[1] or error("usage: perigee run docs/experiments/stops.lua RUN [FIRST_STEP]", 0),
  tonumber(arg[2] or 300)
local THRESHOLDS, CADENCES = { 0.01, 0, -0.02, -0.05, -0.1 }, { 1, 2, 5 }
local TIMES = {
  { name = "0.02, 0.1, 0.5, 0.8", set = { [0.02] = true, [0.1] = true, [0.5] = true, [0.8] = true } },
  { name = "up to 0.1", set = { [0.02] = true, [0.1] = true } },
  { name = "from 0.5", set = { [0.5] = true, [0.8] = true } },
}

--- { { name =, readings = { { step =, value = } } } }, sorted by name.
local function recorded()
  local by_name, list = {}, {}
  for _, event in ipairs(Events.read(run)) do
    if event.event == "signal" and type(event.value) == "table" and event.value.cosine then
      local signal = by_name[event.name]
      if not signal then
        signal = { name = event.name, readings = {} }
        by_name[event.name], list[#list + 1] = signal, signal
      end
      table.insert(signal.readings, { step = event.step, value = event.value })
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- The mean of the cosines at the chosen times, or nil where the run measured none of them.
local function mean_over(value, times)
  local sum, count = 0, 0
  for k, time in ipairs(value.time) do
    if times[time] then sum, count = sum + value.cosine[k], count + 1 end
  end
  return count > 0 and sum / count or nil
end

--- The step of the first reading below the threshold among every `cadence`-th from step `from` on.
local function stop(signal, times, below, cadence)
  local number = 0
  for _, reading in ipairs(signal.readings) do
    if reading.step >= from then
      local value = number % cadence == 0 and mean_over(reading.value, times)
      if value and value < below then return reading.step end
      number = number + 1
    end
  end
  return "-"
end

local function spread(signal, times)
  local sum, square, count, negative = 0, 0, 0, 0
  for _, reading in ipairs(signal.readings) do
    local value = reading.step >= from and mean_over(reading.value, times)
    if value then
      sum, square, count = sum + value, square + value * value, count + 1
      if value < 0 then negative = negative + 1 end
    end
  end
  local mean = sum / count
  return mean, math.sqrt(math.max(square / count - mean * mean, 0)), negative, count
end

local signals = recorded()
if #signals == 0 then error(run .. " recorded no gradient angles", 0) end
local step = signals[1].readings[2] and signals[1].readings[2].step - signals[1].readings[1].step or 1
local header, rule = { "signal", "times" }, { "---", "---" }
for _, cadence in ipairs(CADENCES) do
  for _, below in ipairs(THRESHOLDS) do
    header[#header + 1], rule[#rule + 1] = ("< %g, every %d"):format(below, cadence * step), "---"
  end
end
print("| " .. table.concat(header, " | ") .. " |\n|" .. table.concat(rule, "|") .. "|")
for _, signal in ipairs(signals) do
  for _, times in ipairs(TIMES) do
    local row = { signal.name, times.name }
    for _, cadence in ipairs(CADENCES) do
      for _, below in ipairs(THRESHOLDS) do row[#row + 1] = tostring(stop(signal, times.set, below, cadence)) end
    end
    print("| " .. table.concat(row, " | ") .. " |")
  end
end
print(("\n| signal | times | mean | standard deviation | below 0 |\n|---|---|---|---|---|"))
for _, signal in ipairs(signals) do
  for _, times in ipairs(TIMES) do
    local mean, deviation, negative, count = spread(signal, times.set)
    print(("| %s | %s | %.3f | %.3f | %d of %d |"):format(signal.name, times.name, mean, deviation, negative, count))
  end
end
