--- The time that the training process has taken so far: { seconds =, since = when it began, in seconds since 1970 }. A
--- resumed run is another process, which begins at 0.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.ClockOptions
---@field from? integer    0
---@field every? integer   10

---@class perigee.signals
---@field clock fun(options?: perigee.ClockOptions): perigee.Signal

---@param options? perigee.ClockOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.clock", options or {}, { from = { "natural", 0 }, every = { "count", 10 } })
  return {
    name = "clock", settings = o, key = ("clock %d %d"):format(o.from, o.every),
    measure = function(_, run)
      local seconds = core.C.pg_clock_seconds() - run.began.clock
      return { seconds = seconds, since = run.began.time }
    end,
  }
end
