--- Termination policies. A stop decides when a stage ends. It is pure: `decide(self, event, state)` returns whether the
--- stage is finished and the next state, from the event alone (its step and the signals it `needs`), so that it can be
--- replayed over a recorded run and its state saved with the checkpoint. A decision is one-way.
---
--- pg.stop.NAME is made of what lua/perigee/stops/NAME.lua returns: a function from arguments to a stop's fields.
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"

---@class perigee.stops
local M = {}

---@class perigee.Stop
---@field kind string                its file: pg.stop.KIND
---@field arguments table            what that was given, so that a stop can be written as source again
---@field text string                what the log calls it
---@field needs perigee.Signal[]     what it reads
---@field first? fun(): table        the state before the first event; without it an empty table
---@field latest? fun(self: perigee.Stop): integer?  the step by which it has decided, where it can say one
---@field decide fun(self: perigee.Stop, event: perigee.Event, state: table): boolean, table, string?  finished,
---  next state, reason
local Stop = {}
Stop.__index = Stop
function M.is_stop(x) return getmetatable(x) == Stop end

--- What a policy reads: the step, the stage's name, and each signal that was due, by its name.
---@class perigee.Event
---@field step integer    steps of the run done
---@field stage string
---@field [string] any

function Stop:__tostring() return self.text end

--- The state before the first event.
function Stop:initial() return self.first and self.first() or {} end

function Stop.latest() return nil end

local function make(kind, define)
  return function(...)
    local stop = define(...)
    stop.kind, stop.arguments, stop.needs = kind, stop.arguments or { ... }, stop.needs or {}
    return setmetatable(stop, Stop)
  end
end

--- The fields of a stop made of several: it ends the stage when `wanted` of them have decided to; each decision is
--- kept. `latest` is math.min or math.max.
---@param kind string
---@param wanted integer
---@param latest fun(...: integer): integer
---@param stops perigee.Stop[]
function M.combine(kind, wanted, latest, stops)
  local needs, texts = {}, {}
  if #stops == 0 then core.fail("stop.%s: it needs at least one stop", kind) end
  for k, stop in ipairs(stops) do
    if not M.is_stop(stop) then core.fail("stop.%s: argument %d is a %s, not a stop", kind, k, type(stop)) end
    for _, signal in ipairs(stop.needs) do needs[#needs + 1] = signal end
    texts[k] = stop.text
  end
  return {
    needs = needs, text = kind .. "(" .. table.concat(texts, ", ") .. ")",
    first = function()
      local state = {}
      for k, stop in ipairs(stops) do state[k] = { finished = false, state = stop:initial() } end
      return state
    end,
    decide = function(_, event, state)
      local next_state, finished, reasons = {}, 0, {}
      for k, stop in ipairs(stops) do
        local done, inner, reason = state[k].finished, state[k].state, state[k].reason
        if not done then done, inner, reason = stop:decide(event, inner) end
        next_state[k] = { finished = done, state = inner, reason = reason }
        if done then
          finished = finished + 1
          reasons[#reasons + 1] = reason or stop.text
        end
      end
      return finished >= wanted, next_state, table.concat(reasons, " and ")
    end,
    latest = function()
      local steps = {}
      for _, stop in ipairs(stops) do steps[#steps + 1] = stop:latest() end
      return #steps >= wanted and latest(unpack(steps)) or nil
    end,
  }
end

return room.open({ module = "perigee.stops", what = "stop", make = make }, M)
