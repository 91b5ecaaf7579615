--- Ends the stage when the mean cosine between alignment and denoising, as the training steps measure it per sample
--- (signal.stream_angle), is below `below` in the chosen bins of noise levels, with stated confidence: if it is not
--- below it, the stage ends by mistake with a probability of at most `alarm`, however many readings there are.
---
--- After each reading it tests the samples of the last 1, 2, 4, ... 64 readings. The tests share `alarm`: the j-th of
--- the k-th reading gets the share 1/(k(k + 1)) · 1/(j(j + 1)), and such shares add up to 1. So a clear change is seen
--- after one reading and a small one after many, and neither costs the bound. Before step `from` nothing is read.
local ffi = require "ffi"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local signals = require "perigee.signals"

ffi.cdef "double erfc(double x);"

---@class perigee.StreamAngleOptions
---@field below? number     0
---@field alarm? number     the probability of ending by mistake: 0.05
---@field take? integer[]   numbers of the bins, from 1 at the data (t = 0): all
---@field bins? integer     in how many noise levels are divided: 8
---@field block? integer    at whose output; the one that the feature loss reads
---@field from? integer     500: in the first steps the angle may be negative, since the projector is new
---@field every? integer    steps between readings: 50

---@class perigee.stops
---@field stream_angle fun(options?: perigee.StreamAngleOptions): perigee.Stop

local LEAST, MOST = 30, 64 -- samples of a test; readings that are kept

--- The chosen bins of a reading as one: { samples, sum of their cosines, variance of that sum }. Nil where a bin that
--- has samples has too few to know their spread.
local function together(reading, take)
  local count, sum, variance = 0, 0, 0
  for _, k in ipairs(take) do
    local bin = reading.bins[k]
    if bin.count > 1 then
      count, sum = count + bin.count, sum + bin.count * bin.mean
      variance = variance + (bin.count * bin.error) ^ 2
    end
  end
  return { count, sum, variance }
end

--- The probability of a mean as low as this of `count` samples where it is `below` in truth. Student's t with the
--- samples' degrees of freedom, by Wallace's normal approximation (1959).
local function probability(count, sum, variance, below)
  if variance == 0 then return sum < below * count and 0 or 1 end
  local t, free = (sum - below * count) / math.sqrt(variance), count - 1
  local z = (8 * free + 1) / (8 * free + 3) * math.sqrt(free * math.log(1 + t * t / free))
  return 0.5 * ffi.C.erfc((t < 0 and z or -z) / math.sqrt(2))
end

--- Asks the tests of the newest reading; the list begins with it. Returns the mean and the samples of one that fires.
local function fires(list, number, o)
  local count, sum, variance, test = 0, 0, 0, 0
  for k, one in ipairs(list) do
    count, sum, variance = count + one[1], sum + one[2], variance + one[3]
    local is_test = k == 2 ^ test
    if is_test then test = test + 1 end
    if is_test and count >= LEAST then
      local share = o.alarm / (number * (number + 1)) / (test * (test + 1))
      if probability(count, sum, variance, o.below) < share then return sum / count, count end
    end
  end
end

local function all_bins(o)
  local list = {}
  for k = 1, o.bins do list[k] = k end
  return list
end

local function check_take(o)
  local seen = {}
  for _, k in ipairs(o.take) do
    if k > o.bins then core.fail("stop.stream_angle: take names bin %d of %d", k, o.bins) end
    if seen[k] then core.fail("stop.stream_angle: take names bin %d twice", k) end
    seen[k] = true
  end
  if #o.take == 0 then core.fail "stop.stream_angle: take names no bins" end
end

---@param options? perigee.StreamAngleOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.stream_angle", options or {}, {
    below = { "number", 0 }, alarm = { "number", 0.05, above = 0, below = 1 }, take = { "counts" },
    bins = { "count", 8 }, block = { "count" }, from = { "natural", 500 }, every = { "count", 50 },
  })
  o.take = o.take or all_bins(o)
  check_take(o)
  local signal = signals.stream_angle { block = o.block, bins = o.bins, from = o.from, every = o.every }
  return {
    arguments = { o }, needs = { signal },
    text = ("stream_angle(bins %s of %d, below %g, alarm %g)"):format(table.concat(o.take, ","), o.bins, o.below,
      o.alarm),
    first = function() return { readings = 0, last = {} } end,
    decide = function(_, event, state)
      local reading = event[signal.name]
      if reading == nil then return false, state end
      local number, last = state.readings + 1, { together(reading, o.take), unpack(state.last, 1, MOST - 1) }
      local mean, samples = fires(last, number, o)
      return mean ~= nil, { readings = number, last = last },
        mean and ("mean cosine %.4f of %d samples is below %g"):format(mean, samples, o.below) or nil
    end,
  }
end
