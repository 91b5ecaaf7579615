--- Ends the stage when a loss has not fallen by `by` below its best for `patience` readings.
local check = require "perigee.core.check"
local signals = require "perigee.signals"

---@class perigee.PlateauOptions
---@field loss string        the loss's name
---@field patience? integer  readings without improvement: 20
---@field every? integer     steps between readings: 10
---@field from? integer      0
---@field by? number         what counts as improvement: 0.001

---@class perigee.stops
---@field plateau fun(options: perigee.PlateauOptions): perigee.Stop

---@param options perigee.PlateauOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.plateau", options, {
    loss = "string", patience = { "count", 20 }, every = { "count", 10 }, from = { "natural", 0 },
    by = { "number", 0.001 },
  })
  return {
    arguments = { o }, needs = { signals.loss { o.loss, from = o.from, every = o.every } },
    text = ("plateau(%s, %d readings)"):format(o.loss, o.patience),
    first = function() return { waited = 0 } end,
    decide = function(_, event, state)
      local value = event[o.loss]
      if value == nil then return false, state end
      if not state.best or value < state.best - o.by then return false, { best = value, waited = 0 } end
      local waited = state.waited + 1
      local done = waited >= o.patience
      return done, { best = state.best, waited = waited },
        done and ("%s: no better than %.4g for %d readings"):format(o.loss, state.best, waited) or nil
    end,
  }
end
