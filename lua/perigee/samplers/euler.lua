--- Euler's method on linspace(1, 0, steps + 1), which `shift` moves.
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

---@type perigee.Sampler
return {
  options = { steps = { "count", 50, help = "from noise to data" }, shift = samplers.shift_rule() },
  integrate = function(field, x, o)
    local times = samplers.shifted(samplers.linspace(1, 0, o.steps + 1), o.shift)
    for k = 1, o.steps do
      x = tensor.tidy(function() return x + field(x, times[k]) * (times[k + 1] - times[k]) end)
      o.each(k / o.steps, x)
    end
    return x
  end,
}
