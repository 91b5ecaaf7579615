--- 2/(π·(1 − 2σ + 2σ²)) (Stable Diffusion 3, arXiv 2403.03206): uniform times weighted as if they were drawn by cosmap.

---@class perigee.weightings
---@field cosmap fun(): perigee.Weighting

return function()
  return {
    name = "cosmap",
    of = function(_, level) return 2 / math.pi / (1 - level.sigma * 2 + level.sigma * level.sigma * 2) end,
  }
end
