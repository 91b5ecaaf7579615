--- Flow matching (SiT, arXiv 2401.08740): mean over all elements of (v(x_t, t, y) − v)², v the path's velocity.
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"
local times = require "perigee.times"

---@class perigee.FlowMatchingOptions
---@field name? string              "denoise"
---@field path? "linear"|"cosine"   linear
---@field time? perigee.Time        pg.time.uniform()

---@class perigee.losses
---@field flow_matching fun(options?: perigee.FlowMatchingOptions): perigee.Loss

---@param options? perigee.FlowMatchingOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.flow_matching", options or {}, {
    name = { "string", "denoise" }, path = { "string", "linear", choices = { "linear", "cosine" } },
    time = { "table", times.uniform(), words = "a distribution, such as pg.time.uniform()" },
  })
  local settings = { path = o.path, time = o.time.name }
  for key, value in pairs(o.time) do
    if type(value) == "number" then settings[key] = value end
  end
  return {
    name = o.name, is_denoising = true, asks = { "channels", "size", "classes" },
    path = o.path, time = o.time, settings = settings,
    compute = function(_, context)
      local forward = context:forward()
      return ops.mse(forward.velocity, forward.target)
    end,
    per_sample = function(_, context)
      local forward = context:forward()
      return ops.mse_per_sample(forward.velocity, forward.target)
    end,
  }
end
