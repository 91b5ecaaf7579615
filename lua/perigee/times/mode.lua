--- t = 1 − u − c·(cos²(πu/2) − 1 + u), u uniform: mode sampling with heavy tails (Stable Diffusion 3, arXiv
--- 2403.03206).
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"

---@class perigee.times
---@field mode fun(options?: { scale?: number }): perigee.Time  scale: c, 1.29

---@param options? { scale?: number }
---@return perigee.Time
return function(options)
  local o = check.options("time.mode", options or {}, { scale = { "number", 1.29 } })
  return {
    name = "mode", scale = o.scale,
    draw = function(_, count, state, dtype)
      local u = ops.random_uniform({ count }, { state = state, purpose = "time", dtype = dtype })
      local c = ops.cos(u * (math.pi / 2))
      return 1 - u - (c * c - 1 + u) * o.scale
    end,
  }
end
