--- Images a second over the steps since the last reading, all that a training does in between included.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.ThroughputOptions
---@field from? integer    0
---@field every? integer   100

---@class perigee.signals
---@field throughput fun(options?: perigee.ThroughputOptions): perigee.Signal

---@param options? perigee.ThroughputOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.throughput", options or {}, { from = { "natural", 0 }, every = { "count", 100 } })
  return {
    name = "throughput", settings = o, key = ("throughput %d %d"):format(o.from, o.every), of_process = true,
    of_step = true,
    measure = function(_, run, before)
      local now = { step = run.step, clock = core.C.pg_clock_seconds() }
      before = before or run.began
      local steps, seconds = now.step - before.step, now.clock - before.clock
      return { images_per_second = steps * run.batch_size / math.max(seconds, 1e-9), steps = steps }, now
    end,
  }
end
