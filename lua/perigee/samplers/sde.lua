--- Euler–Maruyama on the reverse SDE: times linspace(1, 0.04, steps), then 0; diffusion w(t) = 2t, drift d = v − ½·w·s
--- with the score s = (r·v − x)/(σ² − r·σ'·σ), r = α/α'. The last step draws no noise.
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

---@type perigee.Sampler
return {
  options = { steps = { "count", 50, help = "from noise to data" } },
  noise = true,
  integrate = function(field, x, o)
    local times = samplers.linspace(1, 0.04, o.steps)
    times[#times + 1] = 0
    for k = 1, o.steps do
      x = tensor.tidy(function()
        local t, dt = times[k], times[k + 1] - times[k]
        local v = field(x, t)
        local alpha, sigma, d_alpha, d_sigma = o.path:at(t)
        local r, w = alpha / d_alpha, 2 * t
        local score = (v * r - x) * (1 / (sigma * sigma - r * d_sigma * sigma))
        local moved = x + (v - score * (w / 2)) * dt
        if k == o.steps then return moved end
        return moved + o.noise(k) * (math.sqrt(w) * math.sqrt(-dt))
      end)
      o.each(k / o.steps, x)
    end
    return x
  end,
}
