--- Heun's method on linspace(1, 0, steps + 1); no correction on the last step.
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

---@type perigee.Sampler
return {
  options = { steps = { "count", 50, help = "from noise to data" } },
  integrate = function(field, x, o)
    local times = samplers.linspace(1, 0, o.steps + 1)
    for k = 1, o.steps do
      x = tensor.tidy(function()
        local dt = times[k + 1] - times[k]
        local v = field(x, times[k])
        local ahead = x + v * dt
        if k == o.steps then return ahead end
        return x + (v + field(ahead, times[k + 1])) * (dt / 2)
      end)
      o.each(k / o.steps, x)
    end
    return x
  end,
}
