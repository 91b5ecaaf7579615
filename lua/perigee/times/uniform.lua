--- t uniform on [0, 1].
local ops = require "perigee.core.ops"

---@class perigee.times
---@field uniform fun(): perigee.Time

---@return perigee.Time
return function()
  return {
    name = "uniform",
    draw = function(_, count, state, dtype)
      return ops.random_uniform({ count }, { state = state, purpose = "time", dtype = dtype })
    end,
  }
end
