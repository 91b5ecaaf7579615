--- Ancestral sampling of a diffusion (DDPM, arXiv 2006.11239) on a coarser set of its steps (improved DDPM, arXiv
--- 2102.09672): x ← mean of the posterior at the predicted x0 + noise of the student's variance or of a fixed one.
local tensor = require "perigee.core.tensor"
local ops = require "perigee.core.ops"

---@type perigee.Sampler
return {
  options = {
    steps = { "count", 250, help = "from noise to data" },
    spacing = { "string", "even", choices = { "even", "stride" }, help = "even, or stride: every n-th step from 0" },
    variance = { "string", "learned", choices = { "learned", "large", "small" },
      help = "learned, where it is; large: beta; small: the posterior's" },
  },
  noise = true, discrete = true,
  integrate = function(field, x, o)
    local path = o.path
    local tables = path:respaced(o.steps, o.spacing)
    for k = o.steps, 1, -1 do
      x = tensor.tidy(function()
        local t = path:time_of(tables.index[k])
        local v, variance = field(x, t)
        local alpha, sigma = path:at(t)
        local mean = (x * alpha - v * sigma) * tables.of_data[k] + x * tables.of_state[k]
        if k == 1 then return mean end
        local noise = o.noise(o.steps + 1 - k)
        local large, small = math.log(tables.beta[k]), tables.log_posterior[k]
        if o.variance == "learned" and variance then
          local share = (variance + 1) * 0.5
          return mean + ops.exp((share * large + (1 - share) * small) * 0.5) * noise
        end
        return mean + noise * math.exp((o.variance == "small" and small or large) / 2)
      end)
      o.each((o.steps + 1 - k) / o.steps, x)
    end
    return x
  end,
}
