--- DDIM (arXiv 2010.02502, equation 12) on a coarser set of a diffusion's steps; with eta = 1 as random as DDPM.
local tensor = require "perigee.core.tensor"

---@type perigee.Sampler
return {
  options = {
    steps = { "count", 50, help = "from noise to data" },
    spacing = { "string", "even", choices = { "even", "stride" }, help = "even, or stride: every n-th step from 0" },
    eta = { "number", 0, least = 0, help = "noise of a step, in units of DDPM's" },
  },
  noise = true, discrete = true,
  integrate = function(field, x, o)
    local path = o.path
    local tables = path:respaced(o.steps, o.spacing)
    for k = o.steps, 1, -1 do
      x = tensor.tidy(function()
        local t = path:time_of(tables.index[k])
        local v = field(x, t)
        local alpha, sigma = path:at(t)
        local data, noise = x * alpha - v * sigma, x * sigma + v * alpha
        local kept, before = tables.kept[k], tables.before[k]
        local spread = o.eta * math.sqrt((1 - before) / (1 - kept)) * math.sqrt(1 - kept / before)
        local moved = data * math.sqrt(before) + noise * math.sqrt(1 - before - spread * spread)
        if k == 1 or spread == 0 then return moved end
        return moved + o.noise(o.steps + 1 - k) * spread
      end)
      o.each((o.steps + 1 - k) / o.steps, x)
    end
    return x
  end,
}
