--- Euler's method on linspace(1, 0, steps + 1).
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

---@type perigee.Sampler
return {
  options = { steps = { "count", 50, help = "from noise to data" } },
  integrate = function(field, x, o)
    local times = samplers.linspace(1, 0, o.steps + 1)
    for k = 1, o.steps do
      x = tensor.tidy(function() return x + field(x, times[k]) * (times[k + 1] - times[k]) end)
      o.each(k / o.steps, x)
    end
    return x
  end,
}
