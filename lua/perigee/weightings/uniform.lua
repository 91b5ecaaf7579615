--- Every image counts alike.

---@class perigee.weightings
---@field uniform fun(): perigee.Weighting

return function() return { name = "uniform", of = function() end } end
