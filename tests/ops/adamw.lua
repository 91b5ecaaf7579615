local core = require "perigee.core"
local door = require "perigee.core.ffi"
local safetensors = require "perigee.io.safetensors"

local tensor, ops = core.tensor, core.ops
local cases = {}

for _, n in ipairs { 1, 31, 32, 33, 72, 257, 4096, 4099, 12289, 40003 } do
  cases[#cases + 1] = {
    name = "square_sum of " .. n,
    run = function(_, x) return ops.square_sum(x) end,
    inputs = { { shape = { n } } },
    reference = function(_, x) return ops.sum(x * x) end,
    tolerance = { float32 = 2e-7, float64 = 1e-13, bfloat16 = 2e-7 },
  }
end

--- Reproducible numbers between -1 and 1.
local function noise(n, seed)
  local list = {}
  for k = 1, n do
    seed = seed * 16807 % 2147483647
    list[k] = 2 * seed / 2147483647 - 1
  end
  return list
end

--- ‖a − b‖ / ‖b‖.
local function distance(a, b)
  local difference = a:to "float64" - b:to "float64"
  return math.sqrt(ops.square_sum(difference):item() / math.max(ops.square_sum(b:to "float64"):item(), 1e-300))
end

local function expect_near(what, got, expected, tolerance)
  local d = distance(got, expected)
  if d > tolerance or d ~= d then error(("%s is off by %.3g, allowed %.3g"):format(what, d, tolerance), 0) end
end

--- The step by other ops, in float64; returns what the parameters, moments and average become.
local function plain_step(s, h)
  local norm = math.sqrt(ops.sum(s.gradient * s.gradient):item())
  local g = s.gradient * (h.clip > 0 and math.min(1, h.clip / (norm + 1e-6)) or 1)
  local m = s.first_moment * h.beta1 + g * (1 - h.beta1)
  local v = s.second_moment * h.beta2 + g * g * (1 - h.beta2)
  local root = ops.sqrt(v * (1 / (1 - h.beta2 ^ h.step))) + h.epsilon
  local p = s.parameters * (1 - h.lr * h.decay) - m / root * (h.lr / (1 - h.beta1 ^ h.step))
  return { parameters = p, first_moment = m, second_moment = v, average = s.average + (p - s.average) * (1 - h.ema) }
end

local function hyper_of(h, dtype)
  return tensor.tensor({ h.lr, h.beta1, h.beta2, h.epsilon, h.decay, h.clip, h.ema, h.step }, { 8 }, dtype or "float64")
end

local STATE = { "parameters", "first_moment", "second_moment", "average" }

--- A state of n parameters and a gradient, in float64, from numbers that float32 holds.
local function state_of(n)
  local s = {}
  for k, name in ipairs { "parameters", "first_moment", "second_moment", "average", "gradient" } do
    s[name] = tensor.tensor(noise(n, 12345 + 1000 * k), { n }, "float32"):to "float64"
  end
  s.second_moment = ops.square(s.second_moment):to "float32":to "float64"
  return s
end

local function in_dtype(state, dtype)
  local s = {}
  for name, t in pairs(state) do s[name] = t:to(dtype):clone() end
  return s
end

local function settings_of(lr, beta2, epsilon, decay, clip, ema, step)
  return { lr = lr, beta1 = 0.9, beta2 = beta2, epsilon = epsilon, decay = decay, clip = clip, ema = ema, step = step }
end

local settings = {
  ["clipped, with decay"] = settings_of(1e-2, 0.95, 1e-8, 0.1, 1, 0.9, 3),
  ["the first step"] = settings_of(1e-4, 0.999, 1e-8, 0, 1e6, 0.9999, 1),
  ["without a clip"] = settings_of(1e-3, 0.999, 1e-6, 0, 0, 0.5, 100000),
}

for name, h in pairs(settings) do
  for _, n in ipairs { 1, 33, 12289 } do
    for dtype, tolerance in pairs { float64 = 1e-13, float32 = 1e-6 } do
      cases[#cases + 1] = {
        name = ("adamw %s, %d parameters, %s"):format(name, n, dtype),
        check = function()
          local start = state_of(n)
          local expected, s = plain_step(start, h), in_dtype(start, dtype)
          s.working, s.hyper, s.square_sum = tensor.empty({ n }, "bfloat16"), hyper_of(h), ops.square_sum(s.gradient)
          ops.adamw(s)
          for _, key in ipairs(STATE) do expect_near(key, s[key], expected[key], tolerance) end
          local moved = s.parameters:to "float64" - start.parameters
          expect_near("the step", moved, expected.parameters - start.parameters, dtype == "float32" and 2e-3 or 1e-10)
          expect_near("working", s.working, s.parameters:to "bfloat16", 0)
          expect_near("gradient", s.gradient, start.gradient, 0)
        end,
      }
    end
  end
end

--- On every device: what a step makes of the state and, where it keeps an average and a working copy, of those: the
--- copy is what the parameters round to.
local function device_case(name, h, n, whole)
  local function results_of(s, off)
    if whole then return s.parameters, s.first_moment, s.second_moment, s.average, off end
    return s.parameters, s.first_moment, s.second_moment
  end
  return {
    name = ("adamw %s, of %d parameters"):format(name, n), dtypes = { "float32" }, tolerance = 2e-6,
    compiled = false, strided = false,
    inputs = {
      { shape = { n } }, { shape = { n } }, { shape = { n }, range = { 0.01, 1 } }, { shape = { n } },
      { shape = { n } },
      { values = { h.lr, h.beta1, h.beta2, h.epsilon, h.decay, h.clip, h.ema, h.step }, dtype = "float64" },
    },
    run = function(_, parameters, first_moment, second_moment, average, gradient, hyper)
      local s = {
        parameters = parameters:clone(), first_moment = first_moment:clone(), second_moment = second_moment:clone(),
        average = whole and average:clone() or nil,
        working = whole and tensor.empty({ n }, "bfloat16", { device = parameters.device }) or nil,
        gradient = gradient, hyper = hyper, square_sum = ops.square_sum(gradient),
      }
      ops.adamw(s)
      return results_of(s, whole and s.working:to "float32" - s.parameters:to("bfloat16"):to "float32")
    end,
    reference = function(_, parameters, first_moment, second_moment, average, gradient)
      local s = plain_step({ parameters = parameters, first_moment = first_moment, second_moment = second_moment,
                             average = average, gradient = gradient }, h)
      return results_of(s, parameters * 0)
    end,
  }
end

for _, n in ipairs { 1, 31, 32, 33, 72, 257, 4099 } do
  for name, h in pairs(settings) do cases[#cases + 1] = device_case(name, h, n, true) end
  cases[#cases + 1] = device_case("without average and working copy", settings["without a clip"], n, false)
end

--- Bits of all that a step writes, with so many threads.
local function bits_of_step(threads)
  local before = door.C.pg_threads()
  door.check(door.C.pg_threads_set(threads))
  local s = in_dtype(state_of(30001), "float32")
  s.hyper, s.square_sum = hyper_of(settings["clipped, with decay"]), ops.square_sum(s.gradient)
  ops.adamw(s)
  door.C.pg_threads_set(before)
  local list = {}
  for k, key in ipairs(STATE) do
    local array, n = tensor.to_host(s[key])
    list[k] = require("ffi").string(array, n * 4)
  end
  return table.concat(list)
end

cases[#cases + 1] = {
  name = "adamw has the same bits with any number of threads",
  check = function()
    local bits = bits_of_step(1)
    assert(bits == bits_of_step(2) and bits == bits_of_step(3), "the bits differ")
  end,
}

cases[#cases + 1] = {
  name = "adamw without average and working copy",
  check = function()
    local h, start = settings["the first step"], state_of(40)
    local expected, s = plain_step(start, h), in_dtype(start, "float64")
    s.average = nil
    s.hyper, s.square_sum = hyper_of(h), ops.square_sum(s.gradient)
    ops.adamw(s)
    expect_near("parameters", s.parameters, expected.parameters, 1e-13)
  end,
}

cases[#cases + 1] = {
  name = "adamw in a program changes the tensors it captured",
  check = function()
    local h, start = settings["clipped, with decay"], state_of(50)
    local expected, s = plain_step(start, h), in_dtype(start, "float64")
    local p, fields = core.program.new "update", {}
    for key, t in pairs(s) do fields[key] = p:capture(t) end
    fields.hyper, fields.square_sum = p:input("hyper", { 8 }, "float64"), ops.square_sum(fields.gradient)
    ops.adamw(fields)
    local executable = core.executable.compile(p, { { name = "square", value = fields.square_sum } })
    executable:run { hyper = hyper_of(h) }
    for _, key in ipairs(STATE) do expect_near(key, s[key], expected[key], 1e-13) end
  end,
}

cases[#cases + 1] = {
  name = "adamw against PyTorch: five steps with warm-up, clip, decay and average",
  check = function()
    local fixture = safetensors.load(door.home .. "/tests/oracle/fixtures/optimizer.safetensors")
    local function flat(prefix)
      local list = {}
      for k, n in ipairs { 1, 31, 33, 257 } do list[k] = fixture[prefix .. "." .. n] end
      return ops.concat(list, 1)
    end
    local s = { parameters = flat "start":clone(), average = flat "start":clone() }
    s.first_moment, s.second_moment = ops.mul(s.average, 0), ops.mul(s.average, 0)
    for step = 1, 5 do
      s.gradient = flat("grad" .. step)
      s.square_sum = ops.square_sum(s.gradient)
      local norm, expected = math.sqrt(s.square_sum:item()), fixture["norm" .. step]:item()
      assert(math.abs(norm / expected - 1) < 1e-6, ("norm %.9g, expected %.9g"):format(norm, expected))
      s.hyper = hyper_of(settings_of(fixture["rate" .. step]:item(), 0.95, 1e-8, 0.1, 1, 0.9, step))
      ops.adamw(s)
      expect_near("the parameters after step " .. step, s.parameters, flat("after" .. step), 1e-6)
      expect_near("the average after step " .. step, s.average, flat("ema" .. step), 1e-6)
    end
    expect_near("the first moment", s.first_moment, flat "m", 1e-6)
    expect_near("the second moment", s.second_moment, flat "v", 1e-6)
  end,
}

cases[#cases + 1] = { name = "adamw with buffers of different sizes",
  run = function(_, p, g, hyper)
    local sum = ops.square_sum(g)
    ops.adamw { parameters = p, first_moment = p, second_moment = p, gradient = g, hyper = hyper, square_sum = sum }
  end,
  inputs = { { shape = { 4 } }, { shape = { 5 } }, { shape = { 8 } } },
  error = "adamw: parameters are [4], gradient is [5]" }
cases[#cases + 1] = { name = "adamw with an unknown field",
  run = function(_, p) ops.adamw { parameters = p, momentum = p } end,
  inputs = { { shape = { 4 } } },
  error = "adamw: unknown field 'momentum'" }
return cases
