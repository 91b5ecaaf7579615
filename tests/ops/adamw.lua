local core = require "perigee.core"
local door = require "perigee.core.ffi"
local safetensors = require "perigee.io.safetensors"
local updates = require "tests.lua.update_cases"

local tensor, ops = core.tensor, core.ops

local function settings_of(lr, beta2, epsilon, decay, clip, ema, step)
  return { lr = lr, beta1 = 0.9, beta2 = beta2, epsilon = epsilon, decay = decay, clip = clip, ema = ema, step = step }
end

local function hyper_of(h) return { h.lr, h.beta1, h.beta2, h.epsilon, h.decay, h.clip, h.ema, h.step } end

local cases = updates.cases {
  name = "adamw",
  moments = { "first_moment", "second_moment" },
  positive = { second_moment = true },
  settings = {
    ["clipped, with decay"] = settings_of(1e-2, 0.95, 1e-8, 0.1, 1, 0.9, 3),
    ["the first step"] = settings_of(1e-4, 0.999, 1e-8, 0, 1e6, 0.9999, 1),
    ["without a clip"] = settings_of(1e-3, 0.999, 1e-6, 0, 0, 0.5, 100000),
  },
  hyper = hyper_of,
  step = function(s, h)
    local g = updates.clipped(s.gradient, h.clip)
    local m = s.first_moment * h.beta1 + g * (1 - h.beta1)
    local v = s.second_moment * h.beta2 + g * g * (1 - h.beta2)
    local root = ops.sqrt(v * (1 / (1 - h.beta2 ^ h.step))) + h.epsilon
    local p = s.parameters * (1 - h.lr * h.decay) - m / root * (h.lr / (1 - h.beta1 ^ h.step))
    return { parameters = p, first_moment = m, second_moment = v, average = s.average + (p - s.average) * (1 - h.ema) }
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
      local h = settings_of(fixture["rate" .. step]:item(), 0.95, 1e-8, 0.1, 1, 0.9, step)
      s.hyper = tensor.tensor(hyper_of(h), { 8 }, "float64")
      ops.adamw(s)
      updates.expect_near("the parameters after step " .. step, s.parameters, flat("after" .. step), 1e-6)
      updates.expect_near("the average after step " .. step, s.average, flat("ema" .. step), 1e-6)
    end
    updates.expect_near("the first moment", s.first_moment, flat "m", 1e-6)
    updates.expect_near("the second moment", s.second_moment, flat "v", 1e-6)
  end,
}

return cases
