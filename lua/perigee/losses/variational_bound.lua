--- The variational bound that trains a learned variance (improved DDPM, arXiv 2102.09672, as DiT has it): the
--- divergence in bits of the posterior N(mean, β̃) from the student's N(mean of its prediction, σ²), log σ² = f·log β +
--- (1 − f)·log β̃ with f = (ν + 1)/2; of the first step, −log2 of the probability of x0 rounded to 256 levels of
--- [−1, 1]. Mean over elements. The prediction is not differentiated here. The denoising loss's path is a diffusion.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

---@class perigee.losses
---@field variational_bound fun(options?: { name?: string }): perigee.Loss

local LEVEL = 1 / 255 -- half the width of a level
local LEAST = 1e-12   -- of a probability

--- The normal distribution function, nearly (Page 1977), as DDPM has it.
local function cumulative(u)
  return (ops.tanh((u + u * u * u * 0.044715) * math.sqrt(2 / math.pi)) + 1) * 0.5
end

local function log_of(p) return ops.log(ops.clamp(p, LEAST)) end

--- −log of the probability of x0's level under N(mean, exp(log_variance)).
local function log_likelihood(x0, mean, log_variance)
  local away, inverse = x0 - mean, ops.exp(log_variance * -0.5)
  local above, below = cumulative((away + LEVEL) * inverse), cumulative((away - LEVEL) * inverse)
  return ops.where(ops.less(x0, -0.999), log_of(above),
    ops.where(ops.less(x0, 0.999), log_of(above - below), log_of(1 - below)))
end

---@param options? { name?: string }
---@return perigee.Loss
return function(options)
  local o = check.options("loss.variational_bound", options or {}, { name = { "string", "variance" } })
  return {
    name = o.name, settings = {},
    compute = function(_, context)
      local forward, path = context:forward(), context.path
      if not (path.indices and path.tables) then
        core.fail("loss '%s': the path is %s; expected a diffusion, loss.flow_matching { path = \"diffusion\" }",
          o.name, path.name)
      end
      if not forward.variance then
        core.fail("loss '%s': the student returns no second value, the variance; pg.models.dit_xl_2 and its like do",
          o.name)
      end
      local stat, tables = op.stat(context.dtype), path.tables
      local shape = { forward.t.shape[1] }
      for d = 2, #forward.x_t.shape do shape[d] = 1 end
      local function pick(of) return path:pick(forward.t, of):reshape(shape) end
      local log_beta = pick(function(k) return math.log(tables.beta[k]) end)
      local log_posterior = pick(function(k) return tables.log_posterior[k] end)
      local of_data = pick(function(k) return tables.of_data[k] end)
      local of_state = pick(function(k) return tables.of_state[k] end)

      local x0, x_t = context:target_images():to(stat), forward.x_t:to(stat)
      local share = (forward.variance:to(stat) + 1) * 0.5
      local log_variance = share * log_beta + (1 - share) * log_posterior
      local mean = ops.stop_gradient(context:estimate "data"):to(stat) * of_data + x_t * of_state
      local away = x0 * of_data + x_t * of_state - mean
      local divergence = (log_variance - log_posterior + ops.exp(log_posterior - log_variance)
        + away * away * ops.exp(log_variance * -1) - 1) * 0.5
      local first = ops.equal(path:index(forward.t), 0):reshape(shape)
      local bound = ops.where(first, log_likelihood(x0, mean, log_variance) * -1, divergence)
      return bound:mean() * (1 / math.log(2))
    end,
  }
end
