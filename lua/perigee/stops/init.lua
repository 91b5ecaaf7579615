--- Termination policies. A stop decides when a stage ends. It is pure: `decide(self, event, state)` returns whether the
--- stage is finished and the next state, from the event alone (its step and the signals it `needs`), so that it can be
--- replayed over a recorded run and its state saved with the checkpoint. A decision is one-way.
---
--- pg.stop.NAME is made of what lua/perigee/stops/NAME.lua returns: a function from arguments to a stop's fields.
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"
local room = require "perigee.core.room"
local tables = require "perigee.base.tables"

---@class perigee.stops
local M = {}

---@class perigee.Stop
---@field kind string                its file: pg.stop.KIND
---@field arguments table            what that was given, so that a stop can be written as source again
---@field text string                what the log calls it
---@field needs perigee.Signal[]     what it reads
---@field first? fun(): table        the state before the first event; without it an empty table
---@field latest fun(self: perigee.Stop, begun?: integer): integer?  the step by which it has decided, if it can say
---  one; its stage begins after step `begun` at the latest, if that is known
---@field remark fun(self: perigee.Stop, step: integer, begun: integer): string?  what a person should know who puts it
---  in charge after step `step`, in a stage that began after step `begun`: that it is past already, say
---@field decide fun(self: perigee.Stop, event: perigee.Event, state: table): boolean, table, string?  finished,
---  next state, reason
local Stop = {}
Stop.__index = Stop
function M.is_stop(x) return getmetatable(x) == Stop end

function Stop:__tostring() return self.text end

--- The state before the first event.
function Stop:initial() return self.first and self.first() or {} end

function Stop.latest() return nil end
function Stop.remark() return nil end

local function make(kind, define)
  return function(...)
    local stop = define(...)
    stop.kind, stop.arguments, stop.needs = kind, stop.arguments or { ... }, stop.needs or {}
    return setmetatable(stop, Stop)
  end
end

-- ---- events -----------------------------------------------------------------------------------------------------

--- The event that a policy reads. A field that it doesn't have is an error; a signal that is declared and not due is
--- nil.
---@class perigee.Event
---@field step integer         steps of the run done
---@field stage string
---@field stage_steps integer  steps of the stage done
---@field [string] any         signals by name: those of the policy and of the stage

local FIELDS = { "step", "stage", "stage_steps" }

--- An event of these fields and of the signals that were due; `declared` are all that the stage measures.
---@param fields { step: integer, stage: string, stage_steps: integer }
---@param declared perigee.Signal[]
---@return perigee.Event
function M.event(fields, declared)
  local names, known = { unpack(FIELDS) }, {}
  for _, signal in ipairs(declared) do names[#names + 1] = signal.name end
  for _, name in ipairs(names) do known[name] = true end
  local function refuse(_, name)
    if known[name] then return nil end
    core.fail("the event has no field '%s'%s", tostring(name), nearest.hint(tostring(name), names))
  end
  return setmetatable(fields, { names = names, __index = refuse })
end

--- The names that an event's fields may have.
---@param event perigee.Event
---@return string[]
function M.names_of(event)
  local class = getmetatable(event)
  return class and class.names or tables.sorted_keys(event)
end

-- ---- several as one ---------------------------------------------------------------------------------------------

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
    latest = function(_, begun)
      local steps = {}
      for _, stop in ipairs(stops) do steps[#steps + 1] = stop:latest(begun) end
      return #steps >= wanted and latest(unpack(steps)) or nil
    end,
    remark = function(_, step, begun)
      local remarks = {}
      for _, stop in ipairs(stops) do remarks[#remarks + 1] = stop:remark(step, begun) end
      return #remarks >= wanted and table.concat(remarks, "; ") or nil
    end,
  }
end

return room.open({ module = "perigee.stops", what = "stop", make = make }, M)
