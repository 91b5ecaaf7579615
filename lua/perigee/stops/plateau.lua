--- Ends the stage when a loss has not fallen by `by` below its best for `patience` readings; or a signal, `of`, or that
--- part of its value that `field` names: stop.plateau { of = signal.alignment_progress(), field = "features.cosine",
--- rising = true }. `rising`: larger is better. A reading without the number is none.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local signals = require "perigee.signals"

---@class perigee.PlateauOptions
---@field loss? string       the loss's name; or
---@field of? perigee.Signal a signal, read at its own cadence
---@field field? string      a part of its value: "features.cosine"
---@field rising? boolean    false
---@field patience? integer  readings without improvement: 20
---@field every? integer     steps between readings of the loss: 10
---@field from? integer      of the loss's first reading: 0
---@field by? number         what counts as improvement: 0.001

---@class perigee.stops
---@field plateau fun(options: perigee.PlateauOptions): perigee.Stop

--- The number at a path such as "features.cosine" in a value, or nil.
local function at(value, field)
  for name in (field or ""):gmatch "[^.]+" do
    value = type(value) == "table" and value[tonumber(name) or name] or nil
  end
  return type(value) == "number" and value or nil
end

local function signal_of(o)
  if (o.loss == nil) == (o.of == nil) then core.fail "stop.plateau: expected `loss` or `of`, and not both" end
  if o.of and not signals.is_signal(o.of) then
    core.fail("stop.plateau: `of` is a %s; expected a signal, such as pg.signal.alignment_progress()", type(o.of))
  end
  return o.of or signals.loss { o.loss, from = o.from, every = o.every }
end

---@param options perigee.PlateauOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.plateau", options, {
    loss = { "string" }, of = { "table" }, field = { "string" }, rising = { "boolean", false },
    patience = { "count", 20 }, every = { "count", 10 }, from = { "natural", 0 }, by = { "number", 0.001 },
  })
  local signal, sign = signal_of(o), o.rising and -1 or 1
  local what = signal.name .. (o.field and "." .. o.field or "")
  return {
    arguments = { o }, needs = { signal },
    text = ("plateau(%s, %d readings)"):format(what, o.patience),
    first = function() return { waited = 0 } end,
    decide = function(_, event, state)
      local value = at(event[signal.name], o.field)
      if value == nil then return false, state end
      if not state.best or sign * value < sign * state.best - o.by then return false, { best = value, waited = 0 } end
      local waited = state.waited + 1
      local done = waited >= o.patience
      return done, { best = state.best, waited = waited },
        done and ("%s: no better than %.4g for %d readings"):format(what, state.best, waited) or nil
    end,
  }
end
