--- EDM (arXiv 2206.00364): an error of x0 counts (s² + d²)/(s·d)², s = σ/α, d the data's standard deviation.
local check = require "perigee.core.check"

---@class perigee.weightings
---@field edm fun(options?: { deviation?: number }): perigee.Weighting  deviation: of the data, 0.5

---@param options? { deviation?: number }
---@return perigee.Weighting
return function(options)
  local o = check.options("weighting.edm", options or {}, { deviation = { "number", 0.5, above = 0 } })
  local d2 = o.deviation ^ 2
  return {
    name = "edm", settings = o,
    of = function(_, level)
      local signal, noise = level.alpha * level.alpha, level.sigma * level.sigma
      return (noise + signal * d2) / (noise * d2) * level.data -- (s² + d²)/(s²·d²) times α²/α²
    end,
  }
end
