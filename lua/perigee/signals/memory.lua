--- Bytes of tensors and arenas on the run's device: { held = now, peak = the most since the process began, by = those
--- held, by purpose: { parameters =, gradients =, arena =, ... } }.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.MemoryOptions
---@field from? integer    0
---@field every? integer   100

---@class perigee.signals
---@field memory fun(options?: perigee.MemoryOptions): perigee.Signal

---@param options? perigee.MemoryOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.memory", options or {}, { from = { "natural", 0 }, every = { "count", 100 } })
  return {
    name = "memory", settings = o, key = ("memory %d %d"):format(o.from, o.every),
    measure = function(_, run)
      local device = core.device_code[run.device]
      local value = { held = tonumber(core.C.pg_memory_now(device, -1)),
        peak = tonumber(core.C.pg_memory_peak(device, -1)), by = {} }
      for name, code in pairs(core.purpose_code) do
        local bytes = tonumber(core.C.pg_memory_now(device, code))
        if bytes > 0 then value.by[name] = bytes end
      end
      return value
    end,
  }
end
