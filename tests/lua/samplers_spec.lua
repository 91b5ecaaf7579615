-- Samplers against PyTorch's results (tests/oracle/README.md, `samplers`): an exact field, and a small SiT.
local oracle = require "tests.lua.oracle"
local expect = require "tests.lua.expect"
local field = require "perigee.sampling.field"
local generate = require "perigee.sampling.generate"
local ops = require "perigee.core.ops"
local paths = require "perigee.paths"
local samplers = require "perigee.samplers"
local sampling = require "perigee.recipe.sampling"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"
local values = require "perigee.sampling.values"

local models = require "perigee.models"
local weights = require "perigee.io.weights"

local fixture = oracle.load "samplers"
local LABELS = { { name = "labels", shape = {}, dtype = "int64" } }

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
local function mixture_velocity(path, centres, weights_of)
  local means, shares = centres:totable(), weights_of:totable()
  local spread = 0.25
  return function(x, t, labels)
    local states, numbers, flat = x:reshape({ x.shape[1], -1 }):totable(), labels:totable(), {}
    for b, state in ipairs(states) do
      local alpha, sigma, d_alpha, d_sigma = paths.of(path):at(type(t) == "table" and t[b] or t)
      local variance = alpha ^ 2 * spread + sigma ^ 2
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
          local velocity = mixture_velocity(path, fixture["mixture.mean"], fixture["mixture.share"])
          samplers.integrate(field.guided(velocity, labels, null, guidance), fixture["mixture.x"], {
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
          local executable = field.compile(student, LABELS, labels.shape[1], { dtype = "float32" })
          local guided = field.new(executable, student, LABELS, { labels = labels }, guidance)
          local x = samplers.integrate(guided, fixture["sit_tiny.x"], {
            sampler = sampler, steps = steps, path = path, noise = noises "sit_tiny",
          })
          oracle.near(name, x, fixture["sit_tiny." .. name], 1e-5)
        end)
      end
    end
  end
end)

describe("samplers' settings", function()
  local f, settings = oracle.load "sampler_settings"
  local labels = f.y
  local null = ops.fill(labels.shape, { value = 3, dtype = "int64" })

  local function run(path, how, guidance)
    local velocity = field.guided(mixture_velocity(path, f.mean, f.share), labels, null, guidance or {})
    return samplers.integrate(velocity, f.x, tables.merged({
      path = path, noise = function(step) return f.noise:to("float64"):select(1, step) end,
    }, how))
  end

  for name in pairs(f) do
    local path, form, norm, last, size, method = name:match "^(%l+)%.([%l_]+)%.([%d.]+)%.(%l+)%.(0%.%d+)%.(%l+)$"
    if path then
      it("are SiT's: " .. name, function()
        local x = run(path, { sampler = "sde", steps = settings.steps, diffusion = form, norm = tonumber(norm),
          last = last, last_size = tonumber(size), method = method })
        oracle.near(name, x, f[name], 1e-10)
      end)
    end
  end

  for _, path in ipairs { "linear", "cosine" } do
    it("move the grid of times, " .. path, function()
      local x = run(path, { sampler = "euler", steps = settings.steps, shift = settings.shift })
      oracle.near("shift", x, f[path .. ".shift"], 1e-10)
    end)

    it("guide some channels alone, " .. path, function()
      local x = run(path, { sampler = "euler", steps = settings.steps },
        { scale = settings.scale, channels = settings.channels })
      oracle.near("channels", x, f[path .. ".channels"], 1e-10)
    end)
  end

  it("let another model stand for the null condition", function()
    local own = mixture_velocity("linear", f.mean, f.share)
    local function worse(x, t) return own(x, t, null) end
    local as_null = run("linear", { sampler = "heun", steps = 4 }, { scale = 2 })
    local as_guide = run("linear", { sampler = "heun", steps = 4 }, { scale = 2, guide = worse })
    oracle.near("guide", as_guide, as_null, 1e-14)
  end)

  it("say where they contradict one another", function()
    for message, how in pairs {
      ["sde: the method heun needs a last step"] = { last = "none", method = "heun" },
      ["sde: steps is 1; without a last step expected 2 or more"] = { last = "none", steps = 1 },
      ["option 'diffusion' is sbdm; expected one of linear"] = { diffusion = "sbdm" },
    } do
      local fine, text = pcall(run, "linear", tables.merged({ sampler = "sde", steps = 2 }, how))
      assert.is_false(fine)
      assert.matches(message, text, nil, true)
    end
  end)
end)

describe("guidance", function()
  --- At how many of Euler's times in N steps guidance asks the unlabelled field.
  local function guided_steps(count, low, high)
    local asked = 0
    local function velocity(x, _, labels)
      asked = asked + labels
      return x
    end
    local x = tensor.tensor({ 1 }, { 1 }, "float64")
    samplers.integrate(field.guided(velocity, 0, 1, { scale = 2, low = low, high = high }), x, { steps = count })
    return asked
  end

  it("acts at both ends of its interval, whatever their rounding", function()
    assert.equal(9, guided_steps(10, 0.2, 1)) -- 1 - 8/10 is below 0.2 in float64
    assert.equal(3, guided_steps(10, 0.3, 0.5))
    assert.equal(1, guided_steps(10, 0.7, 0.7))
    assert.equal(0, guided_steps(10, 0.71, 0.79))
    for count = 1, 60 do
      for first = 1, count, 7 do
        for last = first, count, 5 do
          assert.equal(last - first + 1, guided_steps(count, first / count, last / count))
        end
      end
    end
  end)

  it("is mixed by sample where samples have times of their own", function()
    local x = tensor.tensor({ 1, 2, 3, 4, 5, 6 }, { 3, 2 }, "float64")
    local asked = 0
    local function velocity(state, _, labels)
      asked = asked + labels
      return labels == 1 and state * 10 or state
    end
    local guided = field.guided(velocity, 0, 1, { scale = 2, low = 0.25, high = 0.5 })
    assert.same({ { 1, 2 }, { -24, -32 }, { -40, -48 } }, guided(x, { 0.2, 0.25, 0.5 }):totable())
    assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, guided(x, { 0.1, 0.6, 1 }):totable())
    assert.equal(1, asked)
    assert.same({ { -8, -16 }, { -24, -32 }, { -40, -48 } }, guided(x, { 0.3, 0.4, 0.5 }):totable())
  end)
end)

describe("dopri5", function()
  local known = oracle.load "dopri5"
  local null = ops.fill({ 1 }, { value = 3, dtype = "int64" })

  --- Where the steps of one sample begin: { t, state }.
  local function steps_of(flow, x)
    local begun = { { t = 1, x = x:to "float64" } }
    samplers.integrate(flow, x, { sampler = "dopri5", each = function(done, state)
      if 1 - done ~= begun[#begun].t then begun[#begun + 1] = { t = 1 - done, x = state:clone() } end
    end })
    return begun
  end

  for _, path in ipairs { "linear", "cosine" } do
    local velocity = mixture_velocity(path, known["mean"], known["share"])

    for kind, guidance in pairs { plain = {}, guided = { scale = 1.65, low = 0.25, high = 0.72 } } do
      it(("takes torchdiffeq's steps, %s, %s"):format(path, kind), function()
        for k = 1, 4 do
          local x, label = known["x"]:narrow(1, k, 1), known["y"]:narrow(1, k, 1)
          local begun = steps_of(field.guided(velocity, label, null, guidance), x)
          local times, states = known[("%s.%s.%d.times"):format(path, kind, k)]:totable(),
            known[("%s.%s.%d.states"):format(path, kind, k)]
          for n, t in ipairs(times) do
            assert.near(t, begun[n].t, 1e-10)
            oracle.near(("state %d of sample %d"):format(n, k), begun[n].x, states:narrow(1, n, 1), 1e-10)
          end
        end
      end)
    end

    it("comes as near to the flow as its tolerance says, all samples at once, " .. path, function()
      local flow = field.guided(velocity, known["y"], null, {})
      for _, rtol in ipairs { 1e-3, 1e-6, 1e-9 } do
        local x = samplers.integrate(flow, known["x"], { sampler = "dopri5", rtol = rtol, atol = rtol * 1e-3 })
        oracle.near(("rtol %g"):format(rtol), x, known[path .. ".exact"], 10 * rtol)
      end
    end)
  end

  it("ends at t = 0 where the field is zero or linear, and says where it isn't finite", function()
    local x = tensor.tensor({ 1, -2, 0.5, 3 }, { 2, 2 }, "float64")
    local still = samplers.integrate(function(state) return state * 0 end, x, { sampler = "dopri5" })
    assert.same(x:totable(), still:totable())
    local decayed = samplers.integrate(function(state) return state end, x,
      { sampler = "dopri5", rtol = 1e-10, atol = 1e-12 })
    oracle.near("x/e", decayed, x * math.exp(-1), 1e-9)
    expect.fails(function()
      samplers.integrate(function(state, t) return state * (t[1] < 0.5 and 0 / 0 or 1) end, x, { sampler = "dopri5" })
    end, "dopri5: the velocity is NaN after t = 0.")
  end)
end)

--- A recipe that samples a student, as far as sampling asks it.
local function recipe_of(student)
  return {
    name = "a recipe", student = student, dtype = "float32",
    data = { decode = function(_, x) return x:narrow(2, 1, 3) end, fields = function() return LABELS end },
    flow_matching = function() return { path = "linear" } end,
  }
end

describe("samples by number", function()
  it("do not depend on the batch size, nor on where one begins", function()
    local student = sit_tiny()
    local function draw(settings, options)
      local rows = {}
      settings.seed, settings.cfg = 3, 1.5
      if not settings.sampler then settings.sampler, settings.steps = "sde", 4 end
      settings = sampling.settings("sample", settings, student)
      generate.each(recipe_of(student), settings, options, function(first, images, labels)
        for k = 1, images.shape[1] do
          rows[first + k] = table.concat(images:select(1, k):reshape({ -1 }):totable(), ",") .. " "
            .. labels:totable()[k]
        end
      end)
      return rows
    end
    for _, sampler in ipairs { "sde", "dopri5" } do
      local how = sampler == "dopri5" and { sampler = sampler, interval = { 0.3, 0.6 } } or {}
      local function with(count) return tables.merged(how, { count = count }) end
      local all = draw(with(7), { batch = 7 })
      assert.same(all, draw(with(7), { batch = 3 }))
      local tail = draw(with(3), { first = 4, batch = 2 })
      for k = 5, 7 do assert.equal(all[k], tail[k]) end
      assert.are_not.equal(all[1], all[2])
    end
  end)

  it("have the noise of the seed, the step and the first sample's number", function()
    local student, integrate, seen = sit_tiny(), samplers.integrate, {}
    finally(function() samplers.integrate = integrate end)
    samplers.integrate = function(velocity, x, how)
      seen[#seen + 1] = { x:totable(), how.noise(1):totable(), how.noise(3):totable() }
      return integrate(velocity, x, how)
    end
    local settings = sampling.settings("sample", { count = 4, seed = 3, sampler = "sde", steps = 2 }, student)
    generate.each(recipe_of(student), settings, { batch = 2 }, function() end)
    for k, first in ipairs { 0, 2 } do
      for n, step in ipairs { 0, 1, 3 } do
        local expected = ops.random_normal({ 2, student.channels, student.size[1], student.size[2] },
          { state = tensor.tensor({ 3, step, first }, "int64"), purpose = "sample noise", dtype = "float32" })
        assert.same(expected:totable(), seen[k][n])
      end
    end
  end)

  it("balance the labels, or draw them from seed and number", function()
    assert.same({ 0, 1, 2, 0, 1 }, values.labels("balanced", 0, 5, 3, 0):totable())
    assert.same({ 1, 2, 0 }, values.labels("balanced", 4, 3, 3, 0):totable())
    local drawn = values.labels("drawn", 0, 9, 1000, 7):totable()
    assert.same({ drawn[4], drawn[5] }, values.labels("drawn", 3, 2, 1000, 7):totable())
  end)
end)
