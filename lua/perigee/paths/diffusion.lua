--- The diffusion of DDPM (arXiv 2006.11239) and DiT (arXiv 2212.09748): `steps` times k = 0, 1, ... with variances β_k,
--- x_k = √ᾱ_k·x0 + √(1 − ᾱ_k)·ε, ᾱ_k the product of the 1 − β up to k. A t in [0,1] means k = floor(t·steps), at most
--- steps − 1, and the student is told k. Velocity is √ᾱ·ε − √(1 − ᾱ)·x0 (arXiv 2202.00512).
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

---@class perigee.DiffusionOptions
---@field schedule? "linear"|"cosine"  of β: linear from 1e-4 to 0.02 (at 1000 steps; both times 1000/steps), or that
---  of improved DDPM (arXiv 2102.09672, equation 17), at most 0.999
---@field steps? integer               1000

---@class perigee.paths
---@field diffusion fun(options?: perigee.DiffusionOptions): perigee.DiffusionPath

---@class perigee.DiffusionTables  lists over the steps, from 1 for k = 0
---@field index integer[]          k of the path, which the student is told
---@field beta number[]
---@field kept number[]            ᾱ
---@field before number[]          ᾱ of the step before; 1 at first
---@field log_posterior number[]   log of β̃ = β·(1 − ᾱ_before)/(1 − ᾱ), the first entry replaced by the second
---@field of_data number[]         the posterior's mean is of_data·x0 + of_state·x_k
---@field of_state number[]

---@class perigee.DiffusionPath : perigee.Path
---@field tables perigee.DiffusionTables

local function betas(schedule, steps)
  local list = {}
  if schedule == "linear" then
    local scale = 1000 / steps
    local first, last = scale * 1e-4, scale * 0.02
    for k = 1, steps do list[k] = first + (last - first) * (k - 1) / math.max(steps - 1, 1) end
    return list
  end
  local function kept(s) return math.cos((s + 0.008) / 1.008 * math.pi / 2) ^ 2 end
  for k = 1, steps do list[k] = math.min(1 - kept(k / steps) / kept((k - 1) / steps), 0.999) end
  return list
end

--- Everything that follows from the β of the steps whose path index is `index`.
local function tables_of(beta, index)
  local t = { index = index, beta = beta, kept = {}, before = {}, log_posterior = {}, of_data = {}, of_state = {} }
  local product = 1
  for k, b in ipairs(beta) do
    t.before[k] = product
    product = product * (1 - b)
    t.kept[k] = product
    t.log_posterior[k] = math.log(b * (1 - t.before[k]) / (1 - product))
    t.of_data[k] = b * math.sqrt(t.before[k]) / (1 - product)
    t.of_state[k] = (1 - t.before[k]) * math.sqrt(1 - b) / (1 - product)
  end
  t.log_posterior[1] = t.log_posterior[2] or math.log(beta[1])
  return t
end

local function round_half_even(x)
  local low = math.floor(x)
  local rest = x - low
  if rest > 0.5 or rest == 0.5 and low % 2 == 1 then return low + 1 end
  return low
end

local Diffusion = {}

--- The path index of each t of a list, or of one number.
function Diffusion:index_of(t) return math.min(math.floor(t * self.indices), self.indices - 1) end

function Diffusion:at(t)
  local kept = self.tables.kept[self:index_of(t) + 1]
  local alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
  return alpha, sigma, -sigma, alpha
end

--- k of t [B], int64 [B].
function Diffusion:index(t)
  return ops.minimum(ops.floor(t * self.indices), self.indices - 1):to "int64"
end

--- A number for each step, `of(k)` for k from 1, as values [B] at t [B].
---@param t perigee.Value
---@param of fun(k: integer): number
---@return perigee.Value
function Diffusion:pick(t, of)
  local list = {}
  for k = 1, self.indices do list[k] = of(k) end
  return ops.index_select(tensor.tensor(list, { self.indices }, "float64"):to(t.dtype), 1, self:index(t))
end

function Diffusion:coefficients(t)
  local kept = self.tables.kept
  local alpha = self:pick(t, function(k) return math.sqrt(kept[k]) end)
  local sigma = self:pick(t, function(k) return math.sqrt(1 - kept[k]) end)
  return alpha, sigma, sigma * -1, alpha
end

--- The first step whose log(σ/α) is at least z, in its middle.
function Diffusion:time_at(z)
  local list = {}
  for k, kept in ipairs(self.tables.kept) do list[k] = math.log((1 - kept) / kept) / 2 end
  local levels = tensor.tensor(list, { 1, self.indices }, "float64"):to(z.dtype)
  local below = ops.less(levels, z:reshape { z.shape[1], 1 }):to(z.dtype):sum(2)
  return (ops.minimum(below, self.indices - 1) + 0.5) * (1 / self.indices)
end

function Diffusion:told(t) return self:index(t):to(t.dtype) end

--- A time in the middle of step k of the path.
function Diffusion:time_of(k) return (k + 0.5) / self.indices end

--- A coarser diffusion of `count` steps (improved DDPM): the β that keep ᾱ at the chosen indices. "even" spreads them
--- from the first to the last, rounded half to even; "stride" takes every n-th from 0, n the smallest that gives
--- `count`.
---@param count integer
---@param spacing? "even"|"stride"
---@return perigee.DiffusionTables
function Diffusion:respaced(count, spacing)
  local steps, index = self.indices, {}
  if count > steps then core.fail("sampler: %d steps of a diffusion that has %d", count, steps) end
  if spacing == "stride" then
    local stride = 1
    while stride < steps and math.ceil(steps / stride) ~= count do stride = stride + 1 end
    if math.ceil(steps / stride) ~= count then
      core.fail("sampler: no stride gives %d of the diffusion's %d steps; choose another number, or spacing = \"even\"",
        count, steps)
    end
    for k = 1, count do index[k] = (k - 1) * stride end
  else
    local sum, stride = 0, count > 1 and (steps - 1) / (count - 1) or 1
    for k = 1, count do
      index[k] = round_half_even(sum)
      sum = sum + stride
    end
  end
  local beta, before = {}, 1
  for k, i in ipairs(index) do
    local kept = self.tables.kept[i + 1]
    beta[k] = 1 - kept / before
    before = kept
  end
  return tables_of(beta, index)
end

---@param options? perigee.DiffusionOptions
return function(options)
  local o = check.options("path.diffusion", options or {}, {
    schedule = { "string", "linear", choices = { "linear", "cosine" } }, steps = { "count", 1000 },
  })
  local index = {}
  for k = 1, o.steps do index[k] = k - 1 end
  local path = { name = "diffusion", settings = o, indices = o.steps, tables = tables_of(betas(o.schedule, o.steps),
    index) }
  for name, method in pairs(Diffusion) do path[name] = method end
  return path
end
