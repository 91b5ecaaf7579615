-- The optimisers against PyTorch (tests/oracle/README.md).
local core = require "perigee.core"
local oracle = require "tests.lua.oracle"

local ops, tensor = core.ops, core.tensor
local number, near_number = oracle.number, oracle.near_number

describe("the optimiser", function()
  it("makes PyTorch's steps over four groups, clipped by their common norm, with warm-up and averages", function()
    local fixture, settings = oracle.load "optimizer"
    local optim = require("perigee.optim").adamw { lr = settings.lr, betas = { unpack(settings.betas) },
      epsilon = settings.eps, decay = settings.decay, clip = settings.clip, warmup = settings.warmup }
    local sizes, groups = { 1, 31, 33, 257 }, {}
    for k, n in ipairs(sizes) do
      local start = fixture["start." .. n]
      groups[k] = { parameters = start:clone(), average = start:clone(), gradients = tensor.empty({ n }, "float32"),
        first_moment = ops.fill({ n }, { value = 0, dtype = "float32" }),
        second_moment = ops.fill({ n }, { value = 0, dtype = "float32" }) }
    end
    local update = require "perigee.train.update"
    local hyper, executable = update.hyper "cpu", core.executable.new(update.plan(groups, "cpu"))
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
      oracle.near("m", groups[k].first_moment, fixture["m." .. n], 1e-6)
      oracle.near("v", groups[k].second_moment, fixture["v." .. n], 2e-6)
    end
    executable:free()
  end)
end)
