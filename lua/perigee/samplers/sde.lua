--- The reverse SDE by Euler–Maruyama or Heun's method: drift d = v − ½·w·s with the score s = (r·v − x)/(σ² − r·σ'·σ),
--- r = α/α', and diffusion w. By default REPA's and HASTE's: w = 2t, times linspace(1, 0.04, steps), then one step of
--- the drift alone to 0. The other choices are those of SiT's sample.py, whose diffusion is half of w and whose time
--- runs the other way.
local core = require "perigee.core.ffi"
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

-- w of t, σ and the norm
local diffusions = {
  linear = function(t, _, norm) return 2 * t * norm end,
  sigma = function(_, sigma, norm) return 2 * sigma * norm end,
  constant = function(_, _, norm) return 2 * norm end,
  decreasing = function(t, _, norm) return (1 - norm * math.cos(math.pi * t)) ^ 2 / 2 end,
  increasing_decreasing = function(t, _, norm) return 2 * norm * math.sin(math.pi * t) ^ 2 end,
}

--- The velocity, the score and the diffusion at a time, and the path's α and σ.
local function parts(field, x, t, o)
  local v = field(x, t)
  local alpha, sigma, d_alpha, d_sigma = o.path:at(t)
  local r, w = alpha / d_alpha, diffusions[o.diffusion](t, sigma, o.norm)
  return v, (v * r - x) * (1 / (sigma * sigma - r * d_sigma * sigma)), w, alpha, sigma
end

local function drift(field, x, t, o)
  local v, score, w = parts(field, x, t, o)
  return v - score * (w / 2), w
end

--- A step with noise.
local steps = {
  euler = function(field, x, t, dt, noise, o)
    local d, w = drift(field, x, t, o)
    return x + d * dt + noise * (math.sqrt(w) * math.sqrt(-dt))
  end,
  heun = function(field, x, t, dt, noise, o)
    local _, sigma = o.path:at(t)
    local stirred = x + noise * (math.sqrt(diffusions[o.diffusion](t, sigma, o.norm)) * math.sqrt(-dt))
    local d = drift(field, stirred, t, o)
    return stirred + (d + drift(field, stirred + d * dt, t + dt, o)) * (dt / 2)
  end,
}

--- The last step, which draws no noise.
local lasts = {
  mean = function(field, x, t, o) return x + drift(field, x, t, o) * -t end,
  euler = function(field, x, t) return x + field(x, t) * -t end,
  tweedie = function(field, x, t, o)
    local _, score, _, alpha, sigma = parts(field, x, t, o)
    return (x + score * sigma ^ 2) * (1 / alpha)
  end,
}

local function check(o)
  if o.last ~= "none" then return end
  if o.method == "heun" then core.fail "sde: the method heun needs a last step; last = 'none' ends where σ is 0" end
  if o.steps < 2 then core.fail "sde: steps is 1; without a last step expected 2 or more" end
end

---@type perigee.Sampler
return {
  options = {
    steps = { "count", 50, help = "from noise to data" },
    shift = samplers.shift_rule(),
    diffusion = { "string", "linear", usual = true, help = "linear, sigma, constant, decreasing, increasing_decreasing",
      choices = { "linear", "sigma", "constant", "decreasing", "increasing_decreasing" } },
    norm = { "number", 1, above = 0, usual = true, help = "size of the diffusion" },
    method = { "string", "euler", usual = true, choices = { "euler", "heun" }, help = "euler or heun" },
    last = { "string", "mean", usual = true, choices = { "mean", "tweedie", "euler", "none" },
      help = "the last step: mean, tweedie, euler, none" },
    last_size = { "number", 0.04, above = 0, below = 1, usual = true, help = "the last step's length" },
  },
  noise = true,
  integrate = function(field, x, o)
    check(o)
    local last = lasts[o.last]
    local times = samplers.shifted(samplers.linspace(1, last and o.last_size or 0, o.steps), o.shift)
    local moves = last and o.steps or o.steps - 1
    for k = 1, moves do
      x = tensor.tidy(function()
        if k == o.steps then return last(field, x, times[k], o) end
        return steps[o.method](field, x, times[k], times[k + 1] - times[k], o.noise(k), o)
      end)
      o.each(k / moves, x)
    end
    return x
  end,
}
