--- Samplers: from noise at t = 1 to data at t = 0 along a velocity field (SiT, arXiv 2401.08740). The state is float64.
---
--- A field is a function (x, t) -> velocity: x a float64 tensor [B, ...], t a number. Guidance (classifier-free, arXiv
--- 2207.12598) is part of the field, see samplers/field.lua: drifts and scores are affine in the velocity, so guiding
--- the velocity guides them.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

---@class perigee.samplers
local M = {}

--- α(t), σ(t) and their derivatives.
function M.path(name, t)
  if name == "cosine" then
    local c, s, q = math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t), math.pi / 2
    return c, s, -q * s, q * c
  end
  return 1 - t, t, -1, 1
end

local function linspace(first, last, count)
  local times = {}
  for k = 1, count do times[k] = count == 1 and first or first + (last - first) * (k - 1) / (count - 1) end
  return times
end

--- Euler's method on linspace(1, 0, steps + 1).
local function euler(field, x, o)
  local times = linspace(1, 0, o.steps + 1)
  for k = 1, o.steps do
    x = tensor.tidy(function() return x + field(x, times[k]) * (times[k + 1] - times[k]) end)
    if o.each then o.each(k, x) end
  end
  return x
end

--- Heun's method on the same times; no correction on the last step.
local function heun(field, x, o)
  local times = linspace(1, 0, o.steps + 1)
  for k = 1, o.steps do
    x = tensor.tidy(function()
      local dt = times[k + 1] - times[k]
      local v = field(x, times[k])
      local ahead = x + v * dt
      if k == o.steps then return ahead end
      return x + (v + field(ahead, times[k + 1])) * (dt / 2)
    end)
    if o.each then o.each(k, x) end
  end
  return x
end

--- Euler–Maruyama on the reverse SDE: times linspace(1, 0.04, steps), then 0; diffusion w(t) = 2t, drift d = v − ½·w·s
--- with the score s = (r·v − x)/(σ² − r·σ'·σ), r = α/α'. The last step draws no noise.
local function sde(field, x, o)
  local times = linspace(1, 0.04, o.steps)
  times[#times + 1] = 0
  for k = 1, o.steps do
    x = tensor.tidy(function()
      local t, dt = times[k], times[k + 1] - times[k]
      local v = field(x, t)
      local alpha, sigma, d_alpha, d_sigma = M.path(o.path, t)
      local r, w = alpha / d_alpha, 2 * t
      local score = (v * r - x) * (1 / (sigma * sigma - r * d_sigma * sigma))
      local moved = x + (v - score * (w / 2)) * dt
      if k == o.steps then return moved end
      return moved + o.noise(k) * (math.sqrt(w) * math.sqrt(-dt))
    end)
    if o.each then o.each(k, x) end
  end
  return x
end

M.methods = { euler = euler, heun = heun, sde = sde }

--- Integrates a field from x (float64, at t = 1) to t = 0.
---@param options { sampler?: string, steps?: integer, path?: string, noise?: fun(step: integer): perigee.Tensor,
---  each?: function }
function M.integrate(field, x, options)
  local o = check.options("sampler", options or {}, {
    sampler = { "string", "euler" }, steps = { "integer", 50 }, path = { "string", "linear" }, noise = { "function" },
    each = { "function" },
  })
  local method = M.methods[o.sampler]
  if not method then core.fail("sampler: there is no '%s'; there are euler, heun and sde", o.sampler) end
  if o.steps < 1 then core.fail("sampler: %d steps", o.steps) end
  if o.sampler == "sde" and not o.noise then core.fail "sampler: sde needs a source of noise" end
  return method(field, x:to "float64", o)
end

return M
