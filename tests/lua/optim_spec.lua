-- The optimisers against PyTorch (tests/oracle/README.md).
local core = require "perigee.core"
local fails = require("tests.lua.expect").fails
local oracle = require "tests.lua.oracle"
local tables = require "perigee.base.tables"

local ops, tensor = core.ops, core.tensor
local number, near_number = oracle.number, oracle.near_number

describe("optimisers", function()
  local optim = require "perigee.optim"

  it("are checked where they are made", function()
    for _, case in ipairs {
      { { lr = -1 }, "optim.adamw: option 'lr' is a number (-1); expected a number from 0" },
      { { lr = 0 / 0 }, "expected a number from 0" },
      { { lr = 1 / 0 }, "expected a number from 0" },
      { { betas = { 0.9 } }, "optim.adamw: option 'betas' is a table { 0.9 }; expected 2 numbers from 0 to below 1" },
      { { betas = { 0.9, 1 } }, "expected 2 numbers from 0 to below 1" },
      { { epsilon = 0 }, "optim.adamw: option 'epsilon' is a number (0); expected a number above 0" },
      { { decay = -0.1 }, "expected a number from 0" },
      { { clip = -1 }, "expected a number from 0" },
      { { warmup = 2.5 }, "option 'warmup' is a number (2.5); expected a whole number from 0" },
      { { cooldown = { 9, 3 } }, "optim.adamw: cooldown is { 9, 3 }; expected { first step, last step }" },
      { { bettas = { 0.9, 0.99 } }, 'did you mean "betas"?' },
    } do
      fails(function() optim.adamw(case[1]) end, case[2])
    end
    fails(function() return optim.adamv end, "unknown optimiser 'adamv'; expected one of adamw, lion",
      'did you mean "adamw"?')
    assert.is_true(optim.is_optimiser(optim.adamw()))
    assert.is_false(optim.is_optimiser { lr = 1e-4, kind = "adamw" })
  end)

  it("say what may change while a run is going", function()
    local names = tables.sorted_keys(optim.changeable(optim.adamw()))
    assert.same({ "betas", "clip", "decay", "epsilon", "lr", "warmup" }, names)
    assert.equal("adamw, betas 0.9 0.999, clip 1, decay 0, epsilon 1e-08, lr 0.001, warmup 0",
      optim.describe(optim.adamw { lr = 1e-3 }))
  end)
end)

--- The steps of a fixture over four groups, clipped by their common norm, with warm-up and averages. `moments`: their
--- names here by those of the fixture.
local function follows(fixture_name, settings_of, moments)
  local optim, update = require "perigee.optim", require "perigee.train.update"
  local fixture, settings = oracle.load(fixture_name)
  local optimiser = settings_of(settings)
  local sizes, groups = { 1, 31, 33, 257 }, {}
  for k, n in ipairs(sizes) do
    local start = fixture["start." .. n]
    groups[k] = { parameters = start:clone(), average = start:clone(), gradients = tensor.empty({ n }, "float32"),
      moments = {} }
    for _, name in pairs(moments) do groups[k].moments[name] = ops.fill({ n }, { value = 0, dtype = "float32" }) end
  end
  local hyper = update.hyper(optimiser, "cpu")
  local executable = core.executable.new(update.plan(optimiser, groups, "cpu"))
  for step = 1, settings.steps do
    for k, n in ipairs(sizes) do groups[k].gradients:copy_(fixture[("grad%d.%d"):format(step, n)]) end
    near_number("rate", optim.rate(optimiser, step), number(fixture["rate" .. step]), 1e-15)
    update.settings(hyper, optimiser, settings.ema, step)
    local norm = math.sqrt(executable:run({ hyper = hyper }).squares:item())
    near_number("norm", norm, number(fixture["norm" .. step]), 1e-6)
    for k, n in ipairs(sizes) do
      oracle.near("after", groups[k].parameters, fixture[("after%d.%d"):format(step, n)], 1e-6)
      oracle.near("ema", groups[k].average, fixture[("ema%d.%d"):format(step, n)], 1e-6)
    end
  end
  for letter, name in pairs(moments) do
    for k, n in ipairs(sizes) do
      oracle.near(name, groups[k].moments[name], fixture[letter .. "." .. n], letter == "v" and 2e-6 or 1e-6)
    end
  end
  executable:free()
end

describe("AdamW", function()
  it("makes PyTorch's steps", function()
    follows("optimizer", function(s)
      return require("perigee.optim").adamw { lr = s.lr, betas = { unpack(s.betas) }, epsilon = s.eps, decay = s.decay,
        clip = s.clip, warmup = s.warmup }
    end, { m = "first_moment", v = "second_moment" })
  end)
end)

describe("Lion", function()
  it("makes its paper's steps", function()
    follows("lion", function(s)
      return require("perigee.optim").lion { lr = s.lr, betas = { unpack(s.betas) }, decay = s.decay, clip = s.clip,
        warmup = s.warmup }
    end, { m = "moment" })
  end)
end)
