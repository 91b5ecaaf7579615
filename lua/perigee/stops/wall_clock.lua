--- Ends the stage when training has taken so much time in this stage: stop.wall_clock { hours = 11.5 }, with
--- `minutes` and `seconds` to add. The time of all processes counts, of runs that were stopped and resumed too; that of
--- evaluations and checkpoints is in it, and the time between processes is not.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local signals = require "perigee.signals"

---@class perigee.WallClockOptions
---@field hours? number
---@field minutes? number
---@field seconds? number
---@field every? integer   steps between looks at the clock: 10

---@class perigee.stops
---@field wall_clock fun(options: perigee.WallClockOptions): perigee.Stop

--- What a state becomes by a reading. `begun`: the clock when the stage began in the present process; `first`: no stage
--- came before.
local function advance(state, reading, first)
  if state.since == reading.since then
    return { since = state.since, begun = state.begun, last = reading.seconds, before = state.before }
  end
  local before = state.before + (state.last and state.last - state.begun or 0)
  -- a later process is in this stage from its start; the first one may have done other stages before
  return { since = reading.since, begun = (state.since or first) and 0 or reading.seconds, last = reading.seconds,
    before = before }
end

---@param options perigee.WallClockOptions
---@return perigee.Stop
return function(options)
  local number = { "number", 0, least = 0 }
  local o = check.options("stop.wall_clock", options,
    { hours = number, minutes = number, seconds = number, every = { "count", 10 } })
  local limit = 3600 * o.hours + 60 * o.minutes + o.seconds
  if limit <= 0 then core.fail "stop.wall_clock: no time; expected hours, minutes or seconds" end
  local text = ("wall_clock(%g s)"):format(limit)
  return {
    arguments = { o }, needs = { signals.clock { every = o.every } }, text = text,
    first = function() return { before = 0 } end,
    decide = function(_, event, state)
      local reading = event.clock
      if reading == nil then return false, state end
      local now = advance(state, reading, event.step == event.stage_steps)
      local spent = now.before + now.last - now.begun
      return spent >= limit, now, spent >= limit and ("%.0f s of training done"):format(spent) or nil
    end,
  }
end
