--- Ends the stage when an evaluated metric has turned: `patience` evaluations in a row are worse than the best by more
--- than `by`. stop.metric { "distance" }: smaller is better, unless `rising`. Evaluations are events of the run's log
--- (signal.metric); one that is read twice counts once.
local check = require "perigee.core.check"
local signals = require "perigee.signals"

---@class perigee.MetricStopOptions
---@field [1] string         the event's field: "distance", "accuracy", "fid"
---@field of? string         only events of this name
---@field patience? integer  2
---@field by? number         0
---@field rising? boolean    larger is better: false
---@field from? integer      0
---@field every? integer     steps between looks into the log: 100

---@class perigee.stops
---@field metric fun(options: perigee.MetricStopOptions): perigee.Stop

---@param options perigee.MetricStopOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.metric", options, {
    [1] = "string", of = { "string" }, patience = { "count", 2 }, by = { "number", 0, least = 0 },
    rising = { "boolean", false }, from = { "natural", 0 }, every = { "count", 100 },
  })
  local signal = signals.metric { o[1], of = o.of, from = o.from, every = o.every }
  local sign = o.rising and -1 or 1
  return {
    arguments = { o }, needs = { signal },
    text = ("metric(%s%s, worse by %g, %d in a row)"):format(o[1], o.of and " of " .. o.of or "", o.by, o.patience),
    first = function() return { worse = 0 } end,
    decide = function(_, event, state)
      local reading = event[signal.name]
      if reading == nil or reading.value == nil or reading.step == state.step then return false, state end
      local value = reading.value
      local best = state.best
      if not best or sign * value < sign * best then best = value end
      local worse = sign * value > sign * best + o.by and state.worse + 1 or 0
      local done = worse >= o.patience
      return done, { best = best, worse = worse, step = reading.step },
        done and ("%s %.4g, the best was %.4g"):format(o[1], value, best) or nil
    end,
  }
end
