--- The value of a loss of the step just done: signal.loss { "features" }.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.LossSignalOptions
---@field [1] string       the loss's name
---@field from? integer    0
---@field every? integer   1

---@class perigee.signals
---@field loss fun(options: perigee.LossSignalOptions): perigee.Signal

---@param options perigee.LossSignalOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.loss", options, { [1] = "string", from = { "natural", 0 }, every = { "count", 1 } })
  return {
    name = o[1], settings = o, key = ("loss %s %d %d"):format(o[1], o.from, o.every), of_step = true,
    check = function(_, stage)
      local names = {}
      for k, entry in ipairs(stage.losses) do
        if entry.name == o[1] then return end
        names[k] = entry.name
      end
      core.fail("signal.loss: the stage '%s' has no loss '%s'; it has %s", stage.name, o[1], table.concat(names, ", "))
    end,
    measure = function(_, run) return run.losses[o[1]] end,
  }
end
