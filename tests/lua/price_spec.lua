-- Prices: the memory that a stage is planned to take is the memory that its steps take.
local door = require "perigee.core.ffi"
local memory = require "tests.lua.memory"
local price = require "perigee.cost.price"
local Run = require "perigee.train.run"
local signals = require "perigee.signals"
local tiny = require "tests.lua.tiny"

local C = door.C
local collect, held, peak, without_trace = memory.collect, memory.held, memory.peak, memory.without_trace

describe("the memory of a step", function()
  for _, case in ipairs {
    { "float32", 32, 32, false }, { "float32", 32, 8, false }, { "float32", 32, 32, true }, { "bf16", 32, 32, false },
    { "bf16", 32, 4, true }, { "float64", 16, 16, false }, { "bf16", 32, 32, false, "lion" },
  } do
    local options = { precision = case[1], batch = case[2], micro = case[3], recompute = case[4], width = 64,
      optim = case[5] }
    it(("is the plan's: %s, batch %d in pieces of %d%s%s"):format(case[1], case[2], case[3],
      case[4] and ", recomputed" or "", case[5] and ", by " .. case[5] or ""), function()
        local planned = price.recipe(tiny.recipe(options))
        collect()
        local before = held()
        without_trace(function()
          local run = Run.new(tiny.recipe(options))
          for stage = 1, 2 do
            if stage == 1 then run:build_stage() else run:enter_stage(2) end
            collect()
            C.pg_memory_reset_peak(C.PG_CPU)
            for _ = 1, 3 do run:advance() end
            -- pictures that a data set keeps in memory are not a step's
            local sources = run.recipe.data.sources
            local pictures = sources.images.tensor:bytes() + sources.labels.tensor:bytes()
            local actual = peak() - before - pictures
            local expected = planned[stage].memory_total
            assert.is_true(math.abs(actual - expected) <= 0.02 * expected,
              ("stage %d: %d bytes, planned %d"):format(stage, actual, expected))
            for _, purpose in ipairs { "arena", "parameters", "gradients", "optimizer", "ema", "teacher" } do
              local bytes, figure = held(purpose), planned[stage].memory[purpose]
              assert.is_true(math.abs(bytes - figure) <= math.max(0.005 * figure, 4096),
                ("stage %d, %s: %d bytes, planned %d"):format(stage, purpose, bytes, figure))
            end
          end
          run:free()
        end)
        assert.equal(before, held())
      end)
  end

  it("is the plan's for batches: the one in use and those made ahead", function()
    local options = { batch = 32 }
    local planned = price.recipe(tiny.recipe(options))[1].memory.data
    collect()
    local before = held "data"
    without_trace(function()
      local run = Run.new(tiny.recipe(options))
      run:build_stage()
      for _ = 1, 3 do run:advance() end
      local actual = held "data" - before
      assert.is_true(math.abs(actual - planned) <= 0.02 * planned, ("%d bytes, planned %d"):format(actual, planned))
      run:free()
    end)
  end)

  local function with_the_angle(more)
    local options = { batch = 32, micro = 16, width = 64, angle = true }
    for key, value in pairs(more) do options[key] = value end
    local planned = price.recipe(tiny.recipe(options))[1]
    collect()
    local before = held()
    without_trace(function()
      local run = Run.new(tiny.recipe(options))
      run:build_stage()
      run:advance()
      collect()
      local between = held()
      C.pg_memory_reset_peak(C.PG_CPU)
      run.step = 2
      assert.is_table(signals.measure(run:signals_due(), run).gradient_angle)
      local pictures = run.recipe.data.sources.images.tensor:bytes() + run.recipe.data.sources.labels.tensor:bytes()
      local actual = peak() - before - pictures
      assert.is_true(math.abs(actual - planned.memory_total) <= 0.02 * planned.memory_total,
        ("%d bytes, planned %d"):format(actual, planned.memory_total))
      collect()
      assert.is_true(held() - between < 1024) -- but for a number that a register may still know
      run:free()
    end)
  end

  it("is the plan's with the gradient angle measured, and is that of a step again afterwards", function()
    with_the_angle {}
    with_the_angle { precision = "bf16", angle_ema = true }
  end)
end)

describe("the arithmetic and traffic of a step", function()
  local function free(options) return price.recipe(tiny.recipe(options))[2] end

  it("are those of the whole batch, in however many pieces", function()
    local whole, pieces = free { batch = 32, micro = 32 }, free { batch = 32, micro = 4 }
    for _, stage in ipairs { whole, pieces } do
      assert.is_true(math.abs(stage.flops / (32 * stage.flops_per_image) - 1) < 1e-9)
    end
    assert.is_true(math.abs(pieces.flops / whole.flops - 1) < 0.02)
  end)

  --- Bytes that the update moves, for each number that trains.
  local function update(options)
    local stage = free(options)
    local moments = options.optim == "lion" and 1 or 2
    return (stage.bytes_moved - stage.plan:cost().bytes) / (stage.memory.optimizer / moments / 4)
  end

  it("count the update's reads and writes", function()
    -- gradients twice; parameters, averages and moments read and written; a working copy written, gradients cast
    assert.equal(2 * 4 + 2 * 4 + 2 * 4 + 4 * 4, update { batch = 8 })
    assert.equal(2 * 4 + 2 * 4 + 2 * 4 + 2 * 4, update { batch = 8, optim = "lion" })
    assert.equal(2 * 4 + 2 * 4 + 2 * 4 + 4 * 4 + 2 * 2, update { batch = 8, precision = "bf16" })
  end)

  it("of a reading are those of all its batches", function()
    local function reading(images)
      local recipe = tiny.recipe { batch = 8 }
      local stage = recipe.stages[1]
      stage.signals = { signals.gradient_angle { block = 2, time = { 0.5 }, images = images } }
      return price.stage(recipe, stage).signals[1]
    end
    local one, four = reading(8), reading(32)
    assert.is_true(math.abs(four.flops / one.flops - 4) < 1e-9)
    assert.is_true(math.abs(four.seconds / one.seconds - 4) < 1e-9)
  end)
end)
