-- Samplers against PyTorch's results (tests/oracle/README.md, `samplers`): an exact field, and a small SiT.
local oracle = require "tests.lua.oracle"
local field = require "perigee.samplers.field"
local generate = require "perigee.sampling.generate"
local ops = require "perigee.core.ops"
local samplers = require "perigee.samplers"
local tensor = require "perigee.core.tensor"

local models = require "perigee.models"
local weights = require "perigee.io.weights"

local fixture = oracle.load "samplers"

local function sit_tiny()
  local _, settings = oracle.load "sit_tiny"
  local student = models.sit {
    depth = settings.depth, width = settings.width, heads = settings.heads, patch = settings.patch,
    channels = settings.channels,
    size = { settings.height, settings.columns }, classes = settings.classes, time_features = 2 * settings.frequencies,
    mlp_ratio = settings.ratio,
  }
  student:materialise { initialise = false }
  weights.load(oracle.path "sit_tiny.weights", student)
  return student
end

--- The velocity of a mixture of two Gaussians a class, standard deviation 0.5.
local function mixture_velocity(path)
  local means, shares = fixture["mixture.mean"]:totable(), fixture["mixture.share"]:totable()
  local spread = 0.25
  return function(x, t, labels)
    local alpha, sigma, d_alpha, d_sigma = samplers.path(path, t)
    local variance = alpha ^ 2 * spread + sigma ^ 2
    local states, numbers, flat = x:reshape({ x.shape[1], -1 }):totable(), labels:totable(), {}
    for b, state in ipairs(states) do
      local parts, total, largest = {}, 0, -math.huge
      local y = numbers[b] + 1
      local away = {}
      for k = 1, 2 do
        local mean, square = means[y][k], 0
        away[k] = {}
        for e, value in ipairs(state) do
          away[k][e] = value - alpha * mean[e]
          square = square + away[k][e] ^ 2
        end
        parts[k] = math.log(shares[y][k]) - square / (2 * variance)
        largest = math.max(largest, parts[k])
      end
      for k = 1, 2 do
        parts[k] = math.exp(parts[k] - largest)
        total = total + parts[k]
      end
      for e = 1, #state do
        local v = 0
        for k = 1, 2 do
          local d = away[k][e]
          local toward = means[y][k][e] + alpha * spread * d / variance
          v = v + parts[k] / total * (d_alpha * toward + d_sigma * sigma * d / variance)
        end
        flat[#flat + 1] = v
      end
    end
    return tensor.tensor(flat, x.shape, "float64")
  end
end

local function noises(name)
  local all = fixture[name .. ".noise"]:to "float64"
  return function(step) return all:select(1, step) end
end

describe("samplers", function()
  local steps = 10
  for _, path in ipairs { "linear", "cosine" } do
    for _, sampler in ipairs { "euler", "heun", "sde" } do
      for _, kind in ipairs { "plain", "guided" } do
        local name = ("%s.%s.%s"):format(path, sampler, kind)
        local guidance = kind == "guided" and { scale = 1.65, low = 0, high = 0.72 } or {}

        it("follows the mixture's field, " .. name, function()
          local labels = fixture["mixture.y"]
          local null = ops.fill(labels.shape, { value = 3, dtype = "int64" })
          local states = { fixture["mixture.x"]:to "float64" }
          samplers.integrate(field.guided(mixture_velocity(path), labels, null, guidance), fixture["mixture.x"], {
            sampler = sampler, steps = steps, path = path, noise = noises "mixture",
            each = function(_, x) states[#states + 1] = x:clone() end,
          })
          local expected = fixture["mixture." .. name]
          assert.equal(steps + 1, #states)
          for k = 1, steps + 1 do oracle.near("state " .. k, states[k], expected:select(1, k), 1e-10) end
        end)

        it("follows a SiT's field, " .. name, function()
          local student = sit_tiny()
          local labels = fixture["sit_tiny.y"]
          local executable = field.compile(student, labels.shape[1], { dtype = "float32" })
          local x = samplers.integrate(field.new(executable, student, labels, guidance), fixture["sit_tiny.x"], {
            sampler = sampler, steps = steps, path = path, noise = noises "sit_tiny",
          })
          oracle.near(name, x, fixture["sit_tiny." .. name], 1e-5)
        end)
      end
    end
  end
end)

describe("samples by number", function()
  it("do not depend on the batch size, nor on where one begins", function()
    local student = sit_tiny()
    local function draw(options)
      local rows = {}
      options.seed, options.steps, options.sampler, options.cfg = 3, 4, "sde", 1.5
      options.decode = function(x) return x:narrow(2, 1, 3) end
      generate.each(student, options, function(first, images, labels)
        for k = 1, images.shape[1] do
          rows[first + k] = table.concat(images:select(1, k):reshape({ -1 }):totable(), ",") .. " "
            .. labels:totable()[k]
        end
      end)
      return rows
    end
    local all = draw { count = 7, batch = 7 }
    local pieces = draw { count = 7, batch = 3 }
    assert.same(all, pieces)
    local tail = draw { count = 3, first = 4, batch = 2 }
    for k = 5, 7 do assert.equal(all[k], tail[k]) end
    assert.are_not.equal(all[1], all[2])
  end)

  it("balance the labels, or draw them from seed and number", function()
    assert.same({ 0, 1, 2, 0, 1 }, generate.labels("balanced", 0, 5, 3, 0):totable())
    assert.same({ 1, 2, 0 }, generate.labels("balanced", 4, 3, 3, 0):totable())
    local drawn = generate.labels("drawn", 0, 9, 1000, 7):totable()
    assert.same({ drawn[4], drawn[5] }, generate.labels("drawn", 3, 2, 1000, 7):totable())
    assert.has_error(function() generate.labels({ 5 }, 0, 1, 3, 0) end)
  end)
end)
