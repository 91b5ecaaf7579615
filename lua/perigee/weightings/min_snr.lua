--- Min-SNR (arXiv 2303.09556): an error of x0 counts min(SNR, γ), SNR = α²/σ². On the noise of a variance-preserving
--- path that is min(SNR, γ)/SNR, on its velocity min(SNR, γ)/(SNR + 1).
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"

---@class perigee.weightings
---@field min_snr fun(options?: { gamma?: number }): perigee.Weighting  gamma: 5

---@param options? { gamma?: number }
---@return perigee.Weighting
return function(options)
  local o = check.options("weighting.min_snr", options or {}, { gamma = { "number", 5, above = 0 } })
  return {
    name = "min_snr", settings = o,
    -- min(α²/σ², γ)·data without the division, which has no value at σ = 0
    of = function(_, level)
      local signal, noise = level.alpha * level.alpha, level.sigma * level.sigma
      return ops.minimum(signal, noise * o.gamma) / noise * level.data
    end,
  }
end
