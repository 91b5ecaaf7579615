--- A student as a velocity field, with classifier-free guidance inside an interval of times. Where it predicts noise or
--- data, they are converted.
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core"
local contract = require "perigee.stage.student"
local op = require "perigee.core.op"
local paths = require "perigee.paths"
local ops, tensor = core.ops, core.tensor

local M = {}

--- The name of the input that stands for a condition.
local function input_name(condition) return "given " .. condition.name end

--- The student's forward pass for batches of `batch` as a program: x [B,C,H,W] in `dtype`, t [B] and the student's
--- conditions in, its prediction out, and its variance if it has one. Nothing is computed.
---@param list perigee.Condition[]  with shapes and dtypes (stage/conditions.lua)
---@return perigee.Program, table[] outputs
function M.trace(student, list, batch, dtype)
  local p = core.program.new "prediction"
  local x = p:input("x", { batch, student.channels, student.size[1], student.size[2] }, dtype)
  local t = p:input("t", { batch }, op.stat(dtype))
  local given = {}
  for k, condition in ipairs(list) do
    given[k] = p:input(input_name(condition), { batch, unpack(condition.shape) },
      conditions.seen_as(condition.dtype, dtype))
  end
  local prediction, variance = p:trace(student, x, t, unpack(given))
  contract.expect_prediction(student, prediction, x)
  return p, { { name = "prediction", value = prediction }, variance and { name = "variance", value = variance } }
end

--- The same, compiled. `captures` maps parameters to what stands for them (the moving averages during a run).
---@param options? { dtype?: string, captures?: table, device?: string }
---@return perigee.Executable
function M.compile(student, list, batch, options)
  options = options or {}
  local p, outputs = M.trace(student, list, batch, options.dtype or "float32")
  return core.executable.compile(p, outputs,
    { captures = options.captures, device = options.device, purpose = "signal" })
end

-- Samplers' times are k/N but for rounding: 1 - 8/10 is below 0.2. No two times that are meant to differ are this near.
local ROUNDING = 1e-9

--- Where guidance acts: true or false for all samples, or uint8 [B,1,...] where only some of their times are inside.
local function where_inside(t, x, low, high)
  local function inside(time) return time >= low - ROUNDING and time <= high + ROUNDING end
  if type(t) == "number" then return inside(t) end
  local list, count, shape = {}, 0, { #t }
  for k, time in ipairs(t) do
    list[k] = inside(time) and 1 or 0
    count = count + list[k]
  end
  if count == 0 or count == #t then return count > 0 end
  for k = 2, #x.shape do shape[k] = 1 end
  return tensor.tensor(list, shape, "uint8")
end

--- Guidance of a field under conditions: v = v_null + scale·(v_given − v_null) where low <= t <= high, on all channels
--- or the first few; elsewhere, and with scale 1, the velocity under what is given. `velocity` is a function (x, t,
--- conditions); t is a number, or a list of one number for each sample. A variance, its second result, is that under
--- what is given. `guide`, a function (x, t), stands for v_null: another, worse model (arXiv 2406.02507).
---@param options { scale?: number, low?: number, high?: number, channels?: integer, guide?: function }  1, 0, 1, all
function M.guided(velocity, given, null, options)
  local scale, low, high = options.scale or 1, options.low or 0, options.high or 1
  return function(x, t)
    local v, variance = velocity(x, t, given)
    local inside = scale ~= 1 and where_inside(t, x, low, high)
    if not inside then return v, variance end
    local v_null = options.guide and options.guide(x, t) or velocity(x, t, null)
    local guided, channels = v_null + (v - v_null) * scale, options.channels
    if channels and channels < x.shape[2] then
      local rest = v:narrow(2, channels + 1, x.shape[2] - channels)
      guided = ops.concat({ guided:narrow(2, 1, channels), rest }, 2)
    end
    return inside == true and guided or ops.where(inside, guided, v), variance
  end
end

--- The coefficients of a path at t, a number or a list of one for each of x's samples, to be multiplied with x.
local function level_at(path, t, x)
  local level = {}
  if type(t) == "number" then
    level.alpha, level.sigma, level.d_alpha, level.d_sigma = path:at(t)
    return level
  end
  local each, shape = {}, { #t }
  for k, time in ipairs(t) do each[k] = { path:at(time) } end
  for k = 2, #x.shape do shape[k] = 1 end
  for place, name in ipairs { "alpha", "sigma", "d_alpha", "d_sigma" } do
    local list = {}
    for k = 1, #t do list[k] = each[k][place] end
    level[name] = tensor.tensor(list, shape, "float64")
  end
  return level
end

--- A compiled student as a guided field for given values of its inputs, [B,...] by name.
---@param list perigee.Condition[]
---@param values table<string, perigee.Tensor>
---@param options { scale?: number, low?: number, high?: number, channels?: integer, guide?: function, dtype?: string,
---  captures?: table, path?: perigee.Path, prediction?: perigee.Prediction, least_sigma?: number }  linear, velocity, 0
function M.new(executable, student, list, values, options)
  local dtype, here = options.dtype or "float32", executable.plan.device -- the state is integrated on the CPU
  local stat = op.stat(dtype)
  local function inputs(named)
    local placed = {}
    for _, condition in ipairs(list) do
      local value = named[condition.name]
      placed[input_name(condition)] = value:to(conditions.seen_as(value.dtype, dtype)):to(here)
    end
    return placed
  end
  local nulls = conditions.nulls(student, list, values, options.captures)
  local path, prediction = paths.of(options.path or "linear"), options.prediction or "velocity"
  local function velocity(x, t, given)
    local batch = x.shape[1]
    local time = type(t) == "table" and tensor.tensor(t, { batch }, stat)
      or ops.fill({ batch }, { value = t, dtype = stat })
    given.x, given.t = x:to(dtype):to(here), path:told(time):to(here)
    local result = executable:run(given)
    local function taken(value) return value and value:clone({ device = "cpu" }):to "float64" end
    local v, variance = taken(result.prediction), taken(result.variance)
    if prediction == "velocity" then return v, variance end
    return paths.convert(v, prediction, "velocity", x, level_at(path, t, x), options.least_sigma), variance
  end
  return M.guided(velocity, inputs(values), nulls and inputs(nulls), options)
end

return M
