--- Dormand and Prince's 5(4) pair (1980, doi:10.1016/0771-050X(80)90013-3) with steps chosen by the error: the sampler
--- behind SiT's published ODE numbers. A step is taken where the root mean square of error / (atol + rtol·size) over a
--- sample's elements is at most 1, as in torchdiffeq; size is the larger of |x| before and after. Unlike there, every
--- sample has its own steps, so that it doesn't depend on the others in its batch, and the last step ends at t = 0.
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local NODES = { 0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1 }
local WEIGHTS = { -- of the earlier velocities, at each node; the last row is the fifth-order result
  {},
  { 1 / 5 },
  { 3 / 40, 9 / 40 },
  { 44 / 45, -56 / 15, 32 / 9 },
  { 19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729 },
  { 9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656 },
  { 35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84 },
}
-- the fifth-order result less Shampine's fourth-order one (1986, doi:10.2307/2008219), which torchdiffeq has too
local ERRORS = {
  35 / 384 - 1951 / 21600, 0, 500 / 1113 - 22642 / 50085, 125 / 192 - 451 / 720, 12231 / 42400 - 2187 / 6784,
  11 / 84 - 649 / 6300, -1 / 60,
}
local ORDER = 5
local SAFETY, LEAST, MOST = 0.9, 0.2, 10 -- a step's length changes by these factors at most

--- A number for each sample as float64 [B,1,...], to be multiplied with x.
local function column(list, x)
  local shape = { #list }
  for k = 2, #x.shape do shape[k] = 1 end
  return tensor.tensor(list, shape, "float64")
end

--- The root mean square of each sample's elements, a list.
local function rms(x)
  local squares = (x * x):reshape { x.shape[1], -1 }
  local list = (squares:sum(2) * (1 / squares.shape[2])):totable()
  for k, square in ipairs(list) do list[k] = math.sqrt(square) end
  return list
end

--- Σ weights[j]·velocities[j].
local function combine(weights, velocities)
  local sum
  for j, weight in ipairs(weights) do
    if weight ~= 0 then sum = sum and sum + velocities[j] * weight or velocities[j] * weight end
  end
  return sum
end

local function moved(times, steps, share)
  local list = {}
  for b, t in ipairs(times) do list[b] = t - steps[b] * share end
  return list
end

--- The first step of each sample (Hairer, Nørsett and Wanner, Solving ODEs I, II.4), at most all of the way.
local function first_steps(field, x, times, v, o)
  local scale = ops.abs(x) * o.rtol + o.atol
  local size, speed, small = rms(x / scale), rms(v / scale), {}
  for b in ipairs(times) do
    small[b] = (size[b] < 1e-5 or speed[b] < 1e-5) and 1e-6 or math.min(0.01 * size[b] / speed[b], 1)
  end
  local ahead = field(x - v * column(small, x), moved(times, small, 1))
  local bend, steps = rms((ahead - v) / scale), {}
  for b in ipairs(times) do
    local curvature = math.max(speed[b], bend[b] / small[b])
    local wanted = curvature <= 1e-15 and math.max(1e-6, small[b] * 1e-3) or (0.01 / curvature) ^ (1 / ORDER)
    steps[b] = math.min(100 * small[b], wanted, 1)
  end
  return steps
end

--- One step of every sample: the state ahead, the velocity there, and each sample's error in units of the tolerance.
local function try(field, x, times, steps, v, o)
  local velocities, lengths, ahead = { v }, column(steps, x), nil
  for k = 2, #NODES do
    ahead = x - combine(WEIGHTS[k], velocities) * lengths
    velocities[k] = field(ahead, moved(times, steps, NODES[k]))
  end
  local scale = ops.maximum(ops.abs(x), ops.abs(ahead)) * o.rtol + o.atol
  return ahead, velocities[#NODES], rms(combine(ERRORS, velocities) * lengths / scale)
end

--- The next step's length after one of length `step` with an error in units of the tolerance.
local function next_step(step, err)
  if err == 0 then return step * MOST end
  return step * math.min(MOST, math.max(SAFETY / err ^ (1 / ORDER), err < 1 and 1 or LEAST))
end

--- Moves the samples whose error is within the tolerance, and sets every sample's next step. Returns which have moved,
--- and the latest time.
local function advance(times, steps, errors, o)
  local taken, latest = {}, 0
  for b, err in ipairs(errors) do
    if err ~= err then core.fail("dopri5: the velocity is NaN after t = %g", times[b]) end
    taken[b] = err <= 1 and 1 or 0
    local step = steps[b]
    if taken[b] == 1 then times[b] = times[b] - step end
    steps[b] = math.min(next_step(step, err), times[b])
    if times[b] > 0 and times[b] - steps[b] == times[b] then
      core.fail("dopri5: no step from t = %g is within rtol = %g and atol = %g of the flow", times[b], o.rtol, o.atol)
    end
    latest = math.max(latest, times[b])
  end
  return taken, latest
end

---@type perigee.Sampler
return {
  options = {
    rtol = { "number", 1e-3, least = 0, help = "relative tolerance of a step's error" },
    atol = { "number", 1e-6, above = 0, help = "absolute tolerance of a step's error" },
  },
  integrate = function(field, x, o)
    local times, latest = {}, 1
    for b = 1, x.shape[1] do times[b] = 1 end
    local v = field(x, times)
    local steps = first_steps(field, x, times, v, o)
    while latest > 0 do
      x, v = tensor.tidy(function()
        local ahead, v_ahead, errors = try(field, x, times, steps, v, o)
        local taken
        taken, latest = advance(times, steps, errors, o)
        local where = column(taken, x)
        return ops.where(where, ahead, x), ops.where(where, v_ahead, v)
      end)
      o.each(1 - latest, x)
    end
    return x
  end,
}
