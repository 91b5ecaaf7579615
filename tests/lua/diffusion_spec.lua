-- Diffusion as DiT trains and samples it, against its public code (tests/oracle/README.md, `diffusion`); predictions,
-- targets and weightings of the denoising loss against their formulas.
local Context = require "perigee.stage.context"
local core = require "perigee.core"
local losses = require "perigee.losses"
local message_of = require("tests.lua.expect").message_of
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local paths = require "perigee.paths"
local pg = require "perigee"
local program = require "perigee.core.program"
local samplers = require "perigee.samplers"
local field = require "perigee.sampling.field"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor
local fixture, settings = oracle.load "diffusion"

local function student_of(learned)
  local student = models.dit { depth = settings.depth, width = settings.width, heads = settings.heads,
    patch = settings.patch, channels = settings.channels, size = { settings.height, settings.columns },
    classes = settings.classes, learned_variance = learned }
  student:materialise { initialise = false }
  weights.load(oracle.path "diffusion.weights", student, { names = "dit" })
  return student
end

describe("a diffusion", function()
  for schedule, public in pairs { linear = "linear", cosine = "squaredcos_cap_v2" } do
    it(schedule .. " has the tables of the public code", function()
      local tables = paths.diffusion { schedule = schedule }.tables
      local kept, posterior = {}, {}
      for k = 1, 1000, 37 do
        kept[#kept + 1], posterior[#posterior + 1] = tables.kept[k], tables.log_posterior[k]
      end
      oracle.near("kept", tensor.tensor(kept, { #kept }, "float64"), fixture[public .. ".kept"], 1e-13)
      oracle.near("log_posterior", tensor.tensor(posterior, { #kept }, "float64"), fixture[public .. ".log_posterior"],
        1e-12)
    end)
  end

  it("is coarsened as there", function()
    local path = paths.diffusion()
    for spacing, count in pairs { even = 250, stride = 125 } do
      local coarse = path:respaced(count, spacing)
      assert.same(fixture[spacing .. ".index"]:totable(), coarse.index)
      oracle.near(spacing, tensor.tensor(coarse.beta, { count }, "float64"), fixture[spacing .. ".beta"], 1e-12)
    end
    assert.matches("no stride gives 300 of the diffusion's 1000 steps", message_of(path.respaced, path, 300, "stride"))
    assert.matches("1001 steps of a diffusion that has 1000", message_of(path.respaced, path, 1001))
  end)

  it("says which step a time is, and at which time a noise level is reached", function()
    local path = paths.diffusion()
    local t = tensor.tensor({ 0, 0.0005, 0.25, 0.9999, 1 }, { 5 }, "float64")
    assert.same({ 0, 0, 250, 999, 999 }, path:told(t):totable())
    local levels = {}
    for k, step in ipairs { 0, 1, 500, 999 } do
      local alpha, sigma = path:at(path:time_of(step))
      levels[k] = math.log(sigma / alpha) - 1e-9
    end
    local times = path:time_at(tensor.tensor(levels, { 4 }, "float64"))
    assert.same({ 0, 1, 500, 999 }, path:index(times):totable())
  end)
end)

--- A context of the fixture's batch as inputs of a program.
local function context_of(student, loss)
  local p, v = program.new "diffusion", {}
  local k = fixture.k:to "float32"
  local inputs = { x0 = fixture.x0, y = fixture.y, t = (k + 0.5) * (1 / 1000), noise = fixture.noise }
  for name, value in pairs(inputs) do v[name] = p:input(name, value.shape, value.dtype) end
  local context = Context.new { program = p, student = student, batch = {}, labels = v.y, path = loss.path, t = v.t,
    prediction = loss.prediction, least_sigma = loss.least_sigma, noise = v.noise, dtype = "float32",
    drop_labels = false }
  context.x0 = v.x0
  return context, p, inputs
end

describe("DiT's loss", function()
  it("and every gradient of it are those of the public code", function()
    local student = student_of()
    local denoise = losses.flow_matching { path = "diffusion", prediction = "noise" }
    local context, p, inputs = context_of(student, denoise)
    local mse = denoise:compute(context)
    local bound = losses.variational_bound():compute(context)
    local outputs = { { name = "mse", value = mse }, { name = "vb", value = bound } }
    local public, wrt = weights.public_parameters(student, "dit"), {}
    for k, entry in ipairs(public) do wrt[k] = p:capture(entry.parameter) end
    local gradients = core.gradient(p, { mse + bound }, { tensor.tensor(1, {}, "float32") }, wrt)
    for k, entry in ipairs(public) do
      outputs[#outputs + 1] = { name = "gradient." .. entry.name, value = gradients[k] }
    end
    local out = core.executable.compile(p, outputs):run(inputs)
    oracle.near_number("mse", out.mse:item(), fixture.mse:mean():item(), 1e-5)
    -- float32: the probability of a level is a difference of two near 1
    oracle.near_number("vb", out.vb:item(), fixture.vb:mean():item(), 5e-5)
    local count = 0
    for name in pairs(fixture) do count = count + (name:match "^gradient%." and 1 or 0) end
    assert.equal(count, #public)
    for _, entry in ipairs(public) do
      local name = "gradient." .. entry.name
      oracle.near(name, out[name]:reshape(entry.shape), fixture[name], 1e-4)
    end
  end)

  it("needs a diffusion and a student with a variance", function()
    local denoise, bound = losses.flow_matching(), losses.variational_bound()
    assert.matches("the path is linear; expected a diffusion",
      message_of(bound.compute, bound, (context_of(student_of(), denoise))))
    denoise = losses.flow_matching { path = "diffusion", prediction = "noise" }
    assert.matches("the student returns no second value, the variance",
      message_of(bound.compute, bound, (context_of(student_of(false), denoise))))
  end)
end)

describe("samples of a diffusion", function()
  local function sample(how, learned)
    local student, path = student_of(learned), paths.diffusion()
    local labels = fixture["sample.y"]
    local list = { { name = "labels", shape = {}, dtype = "int64" } }
    local velocity = field.new(field.compile(student, list, 2), student, list, { labels = labels },
      { path = path, prediction = "noise" })
    how.path, how.steps = path, 8
    how.noise = function(step) return fixture["sample.noise"]:select(1, step):to "float64" end
    return samplers.integrate(velocity, fixture["sample.x"], how)
  end

  for name, how in pairs { learned = {}, large = { variance = "large" }, small = { variance = "small" } } do
    it("by DDPM are the public code's, variance " .. name, function()
      how.sampler = "ddpm"
      oracle.near(name, sample(how), fixture["ddpm." .. name], 2e-5)
      if name ~= "learned" then oracle.near(name .. " of a student without one", sample(how, false),
        fixture["ddpm." .. name], 2e-5) end
    end)
  end

  for _, eta in ipairs { 0, 0.5 } do
    it(("by DDIM are the public code's, eta %g"):format(eta), function()
      oracle.near("ddim", sample { sampler = "ddim", spacing = "stride", eta = eta },
        fixture[("ddim.%.1f"):format(eta)], 2e-5)
    end)
  end

  it("are drawn by samplers of diffusions, and those draw no others", function()
    local function integrate(sampler, path)
      return message_of(samplers.integrate, function(x) return x end, pg.zeros(1, 2),
        { sampler = sampler, path = path, noise = function() end })
    end
    assert.matches("euler is not for the path 'diffusion', whose times are discrete; expected one of ddim, ddpm",
      integrate("euler", "diffusion"))
    assert.matches("ddpm is not for the path 'linear', whose times are continuous; expected one of dopri5, euler",
      integrate("ddpm", "linear"))
  end)
end)

describe("predictions", function()
  for _, name in ipairs { "linear", "cosine", "diffusion" } do
    it("become one another on the path " .. name, function()
      local path = paths.of(name)
      local x0, noise = fixture.x0:to "float64", fixture.noise:to "float64"
      local t = tensor.tensor({ 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.25 }, { 7 }, "float64")
      local x_t, velocity = path:noised(x0, noise, t)
      local level = {}
      level.alpha, level.sigma, level.d_alpha, level.d_sigma = path:coefficients(t)
      for key, c in pairs(level) do level[key] = type(c) == "number" and c or c:reshape { 7, 1, 1, 1 } end
      local known = { data = x0, noise = noise, velocity = velocity }
      for from, value in pairs(known) do
        for to, expected in pairs(known) do
          oracle.near(from .. " as " .. to, paths.convert(value, from, to, x_t, level), expected, 1e-12)
        end
      end
      for k, time in ipairs(t:totable()) do
        for place, c in ipairs { level.alpha, level.sigma, level.d_alpha, level.d_sigma } do
          local value = type(c) == "number" and c or c:reshape({ 7 }):totable()[k]
          assert.is_true(math.abs(value - select(place, path:at(time))) < 1e-12)
        end
      end
    end)
  end

  it("of data train on the velocity with a bounded divisor, as JiT does", function()
    local student = student_of(false)
    local loss = losses.flow_matching { prediction = "data", target = "velocity", least_sigma = 0.4 }
    local context, p, inputs = context_of(student, loss)
    local value = loss:compute(context)
    local forward = context:forward()
    local out = core.executable.compile(p, { { name = "loss", value = value },
      { name = "x", value = forward.prediction }, { name = "z", value = forward.x_t } }):run(inputs)
    local divisor = ops.maximum(inputs.t, 0.4):reshape { 7, 1, 1, 1 }
    local difference = (out.z - out.x) / divisor - (out.z - inputs.x0) / divisor
    oracle.near_number("loss", out.loss:item(), difference:square():mean():item(), 1e-5)
  end)
end)

describe("weightings", function()
  --- The loss of a weighting over the plain squared errors of each image.
  local function weighed(options)
    local student = student_of(false)
    local loss = losses.flow_matching(options)
    local context, p, inputs = context_of(student, loss)
    local value, kind = loss:compute(context), options.target or options.prediction or "velocity"
    local estimate, sought = context:estimate(kind), context:sought(kind)
    local out = core.executable.compile(p, { { name = "loss", value = value },
      { name = "errors", value = (estimate - sought):square():flatten(2):mean(2) } }):run(inputs)
    return out.loss:item(), out.errors:totable(), inputs.t:totable()
  end

  local function expect(options, weight)
    local loss, errors, times = weighed(options)
    local sum = 0
    for k, err in ipairs(errors) do sum = sum + err * weight(loss, paths.of(options.path or "linear"):at(times[k])) end
    oracle.near_number(options.weighting.name, loss, sum / #errors, 1e-4)
  end

  it("are the published formulas", function()
    local function snr(_, alpha, sigma) return alpha ^ 2 / sigma ^ 2 end
    local diffusion = { path = "diffusion", weighting = pg.weighting.min_snr { gamma = 5 } }
    for prediction, formula in pairs {
      noise = function(s) return math.min(s, 5) / s end,
      data = function(s) return math.min(s, 5) end,
      velocity = function(s) return math.min(s, 5) / (s + 1) end,
    } do
      diffusion.prediction = prediction
      expect(diffusion, function(...) return formula(snr(...)) end)
    end
    expect({ weighting = pg.weighting.sigma_sqrt() }, function(_, _, sigma) return math.max(sigma, 1e-3) ^ -2 end)
    expect({ weighting = pg.weighting.cosmap() },
      function(_, _, sigma) return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma ^ 2)) end)
    expect({ prediction = "data", weighting = pg.weighting.edm { deviation = 0.5 } }, function(_, alpha, sigma)
      local s = sigma / alpha
      return (s ^ 2 + 0.25) / (s * 0.5) ^ 2
    end)
  end)

  it("are part of a loss's settings", function()
    assert.same({ path = "linear", time = "uniform" }, losses.flow_matching().settings)
    local loss = losses.flow_matching { path = pg.path.diffusion { schedule = "cosine" }, prediction = "noise",
      target = "data", weighting = pg.weighting.min_snr { gamma = 3 }, time = pg.time.mode { scale = 1 } }
    assert.same({ path = "diffusion", path_schedule = "cosine", path_steps = 1000, time = "mode", scale = 1,
      prediction = "noise", target = "data", weighting = "min_snr", weighting_gamma = 3 }, loss.settings)
    assert.matches("weighting is a table; expected a weighting",
      message_of(losses.flow_matching, { weighting = {} }))
    assert.matches("unknown path 'curved'", message_of(losses.flow_matching, { path = "curved" }))
  end)
end)

describe("a DiT", function()
  local in_folder = dofile(require("perigee.core.ffi").home .. "/tests/lua/folder.lua")(before_each, after_each)

  local function recipe()
    return pg.recipe {
      name = "dit", student = models.dit { depth = 1, width = 16, heads = 2, size = 32, patch = 8, channels = 3,
        classes = 8 },
      data = pg.data.shapes { batch = 4, count = 8 }, optim = pg.optim.adamw { lr = 1e-3 },
      stages = { { name = "train", finish = pg.stop.at_step(4),
        losses = { { 1, pg.loss.flow_matching { path = "diffusion", prediction = "noise" } },
          { 1, pg.loss.variational_bound() } } } },
      every = { log = 1, checkpoint = 2 }, sample = { count = 2, steps = 3, cfg = 1.5 },
    }
  end

  it("trains, resumes and draws samples by DDPM", function()
    local tiny, files = require "tests.lua.tiny", require "perigee.io.files"
    assert.equal("ddpm", recipe().sample.sampler)
    local whole, parts = in_folder "whole", in_folder "parts"
    local run = tiny.train({}, { recipe = recipe(), folder = whole, keep = true })
    require("perigee.sampling.preview").save(run)
    run:free()
    tiny.train({}, { recipe = recipe(), folder = parts, steps = 2 })
    run = tiny.train({}, { recipe = recipe(), folder = parts, resume = true, keep = true })
    require("perigee.sampling.preview").save(run)
    run:free()
    assert.equal(tiny.checkpoint(whole, 4), tiny.checkpoint(parts, 4))
    local picture = "/samples/step-0000004.png"
    assert.equal(files.read(whole .. picture), files.read(parts .. picture))
  end)

  it("has its variance trained, or none", function()
    local given = recipe()
    given.stages[1].losses[2] = nil
    assert.matches("the student learns a variance, which no loss trains; add { 1, loss.variational_bound%(%) }",
      message_of(given.validate, given))
  end)

  it("says at the recipe's line which samplers draw it", function()
    local given = recipe()
    assert.matches("euler is not for the path 'diffusion'", message_of(require("perigee.recipe.sampling").settings,
      "sample", { sampler = "euler" }, given.student, given.sample, given:path()))
  end)
end)

describe("times", function()
  local state = tensor.tensor({ 3, 5, 0 }, "int64")

  it("of the mode distribution and shifted ones are where their formulas say", function()
    local u = pg.time.uniform():draw(1000, state, "float64", paths.linear())
    local expected = 1 - u - (ops.cos(u * (math.pi / 2)):square() - 1 + u) * 1.29
    oracle.near("mode", pg.time.mode():draw(1000, state, "float64", paths.linear()), expected, 1e-14)
    local shifted = pg.time.shift { factor = 3 }:draw(1000, state, "float64", paths.linear())
    oracle.near("shift", shifted, u * 3 / (u * 2 + 1), 1e-14)
    assert.same({ name = "shift", factor = 3, of = "log_normal", of_mu = 1, of_deviation = 1 }, (function(time)
      time.draw = nil
      return time
    end)(pg.time.shift { factor = 3, time = pg.time.log_normal { mu = 1 } }))
  end)
end)
