--- Denoising: mean over a batch of w(t)·(mean square of estimate − target). By default flow matching (SiT, arXiv
--- 2401.08740): the student predicts the velocity, which is the target, and w is 1. Path, time, prediction, target and
--- weighting are chosen independently. DiT's loss is { path = "diffusion", prediction = "noise" } with
--- loss.variational_bound.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local paths = require "perigee.paths"
local times = require "perigee.times"
local weightings = require "perigee.weightings"

---@class perigee.FlowMatchingOptions
---@field name? string                     "denoise"
---@field path? string|perigee.Path        linear: pg.path.NAME by its name, or a path
---@field time? perigee.Time               pg.time.uniform()
---@field prediction? perigee.Prediction   what the student returns: velocity
---@field target? perigee.Prediction       what is compared: the prediction
---@field weighting? perigee.Weighting     pg.weighting.uniform()
---@field least_sigma? number              where data become a velocity or noise, σ in the divisor is at least this: 0

---@class perigee.losses
---@field flow_matching fun(options?: perigee.FlowMatchingOptions): perigee.Loss

local function plain_values(into, prefix, given)
  for key, value in pairs(given) do
    if type(value) == "number" or type(value) == "string" and key ~= "name" then into[prefix .. key] = value end
  end
end

--- What decides the loss, flat. What has its default is left out, but for path and time.
local function settings_of(o)
  local settings = { path = o.path.name, time = o.time.name }
  plain_values(settings, "", o.time)
  plain_values(settings, "path_", o.path.settings or {})
  if o.prediction ~= "velocity" then settings.prediction = o.prediction end
  if o.target ~= o.prediction then settings.target = o.target end
  if o.weighting.name ~= "uniform" then
    settings.weighting = o.weighting.name
    plain_values(settings, "weighting_", o.weighting.settings or {})
  end
  if o.least_sigma > 0 then settings.least_sigma = o.least_sigma end
  return settings
end

--- Factor by which a squared error of `target` is one of x0, at a noise level.
local function data_factor(target, level)
  if target == "data" then return 1 end
  local by = target == "noise" and level.alpha or level.d_sigma * level.alpha - level.sigma * level.d_alpha
  return level.sigma * level.sigma / (by * by)
end

--- What is compared, and each image's weight [B], nil where all count alike.
local function parts(o, context)
  local level = context:noise_level()
  level.data = data_factor(o.target, level)
  return context:estimate(o.target), context:sought(o.target), o.weighting:of(level)
end

---@param options? perigee.FlowMatchingOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.flow_matching", options or {}, {
    name = { "string", "denoise" }, path = { "string|table", "linear" },
    time = { "table", times.uniform(), words = "a distribution, such as pg.time.uniform()" },
    prediction = { "string", "velocity", choices = paths.KINDS }, target = { "string", choices = paths.KINDS },
    weighting = { "table", weightings.uniform(), words = "a weighting, such as pg.weighting.min_snr()" },
    least_sigma = { "number", 0, least = 0 },
  })
  o.path, o.target = paths.of(o.path), o.target or o.prediction
  if not o.weighting.of then
    core.fail "loss.flow_matching: weighting is a table; expected a weighting, such as pg.weighting.min_snr()"
  end
  return {
    name = o.name, is_denoising = true, asks = { "channels", "size", "classes" },
    path = o.path, time = o.time, prediction = o.prediction, least_sigma = o.least_sigma, settings = settings_of(o),
    compute = function(_, context)
      local estimate, target, weight = parts(o, context)
      if not weight then return ops.mse(estimate, target) end
      return (ops.mse_per_sample(estimate, target) * weight):mean()
    end,
    per_sample = function(_, context)
      local estimate, target, weight = parts(o, context)
      local errors = ops.mse_per_sample(estimate, target)
      return weight and errors * weight or errors
    end,
  }
end
