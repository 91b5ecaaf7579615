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
      { { betas = { 0.9 } }, "optim.adamw: option 'betas' is a table ({ 0.9 }); expected 2 numbers from 0 to below 1" },
      { { betas = { 0.9, 1 } }, "expected 2 numbers from 0 to below 1" },
      { { epsilon = 0 }, "optim.adamw: option 'epsilon' is a number (0); expected a number above 0" },
      { { decay = -0.1 }, "expected a number from 0" },
      { { clip = -1 }, "expected a number from 0" },
      { { warmup = 2.5 }, "option 'warmup' is a number (2.5); expected natural" },
      { { cooldown = { 9, 3 } }, "optim.adamw: cooldown is { 9, 3 }; expected { first step, last step }" },
      { { bettas = { 0.9, 0.99 } }, 'did you mean "betas"?' },
    } do
      fails(function() optim.adamw(case[1]) end, case[2])
    end
    fails(function() return optim.adamv end, "unknown optimiser 'adamv'; expected one of adamw",
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

describe("AdamW", function()
  it("makes PyTorch's steps over four groups, clipped by their common norm, with warm-up and averages", function()
    local fixture, settings = oracle.load "optimizer"
    local optim = require("perigee.optim").adamw { lr = settings.lr, betas = { unpack(settings.betas) },
      epsilon = settings.eps, decay = settings.decay, clip = settings.clip, warmup = settings.warmup }
    local sizes, groups = { 1, 31, 33, 257 }, {}
    for k, n in ipairs(sizes) do
      local start = fixture["start." .. n]
      groups[k] = { parameters = start:clone(), average = start:clone(), gradients = tensor.empty({ n }, "float32"),
        moments = { first_moment = ops.fill({ n }, { value = 0, dtype = "float32" }),
          second_moment = ops.fill({ n }, { value = 0, dtype = "float32" }) } }
    end
    local update = require "perigee.train.update"
    local hyper, executable = update.hyper(optim, "cpu"), core.executable.new(update.plan(optim, groups, "cpu"))
    for step = 1, settings.steps do
      for k, n in ipairs(sizes) do groups[k].gradients:copy_(fixture[("grad%d.%d"):format(step, n)]) end
      near_number("rate", require("perigee.optim").rate(optim, step), number(fixture["rate" .. step]), 1e-15)
      update.settings(hyper, optim, settings.ema, step)
      local norm = math.sqrt(executable:run({ hyper = hyper }).squares:item())
      near_number("norm", norm, number(fixture["norm" .. step]), 1e-6)
      for k, n in ipairs(sizes) do
        oracle.near("after", groups[k].parameters, fixture[("after%d.%d"):format(step, n)], 1e-6)
        oracle.near("ema", groups[k].average, fixture[("ema%d.%d"):format(step, n)], 1e-6)
      end
    end
    for k, n in ipairs(sizes) do
      oracle.near("m", groups[k].moments.first_moment, fixture["m." .. n], 1e-6)
      oracle.near("v", groups[k].moments.second_moment, fixture["v." .. n], 2e-6)
    end
    executable:free()
  end)
end)
