-- Memory: what a step holds is what the plan said, a teacher's bytes come back, nothing grows, nothing leaks.
local door = require "perigee.core.ffi"
local ffi = require "ffi"
local price = require "perigee.cost.price"
local Run = require "perigee.train.run"
local signals = require "perigee.signals"
local tensor = require "perigee.core.tensor"
local tiny = require "tests.lua.tiny"

local C = door.C

local function collect()
  collectgarbage()
  collectgarbage()
end

local function held(purpose)
  return tonumber(C.pg_memory_now(C.PG_CPU, purpose and door.purpose_code[purpose] or -1))
end
local function peak() return tonumber(C.pg_memory_peak(C.PG_CPU, -1)) end

local function new_run(options)
  return Run.new(tiny.recipe(options))
end

--- The same in a function of its own, so that no register of the caller's keeps what it left.
local function without_trace(body, ...)
  body(...)
  collect()
end

describe("the memory of a step", function()
  for _, case in ipairs {
    { "float32", 32, 32, false }, { "float32", 32, 8, false }, { "float32", 32, 32, true }, { "bf16", 32, 32, false },
    { "bf16", 32, 4, true }, { "float64", 16, 16, false },
  } do
    local options = { precision = case[1], batch = case[2], micro = case[3], recompute = case[4], width = 64 }
    it(("is the plan's: %s, batch %d in pieces of %d%s"):format(case[1], case[2], case[3],
      case[4] and ", recomputed" or ""), function()
        local planned = price.recipe(tiny.recipe(options))
        collect()
        local before = held()
        without_trace(function()
          local run = new_run(options)
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

  local function with_the_angle(more)
    local options = { batch = 32, micro = 16, width = 64, angle = true }
    for key, value in pairs(more) do options[key] = value end
    local planned = price.recipe(tiny.recipe(options))[1]
    collect()
    local before = held()
    without_trace(function()
      local run = new_run(options)
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

  it("has no teacher in a stage that needs none: its bytes are returned", function()
    collect()
    without_trace(function()
      local run = new_run {}
      run:build_stage()
      assert.is_true(held "teacher" > 180000)
      run:enter_stage(2)
      collect()
      assert.equal(0, held "teacher")
      run:advance()
      assert.equal(0, held "teacher")
      run:free()
    end)
  end)

  it("does not grow over a thousand steps, by the accounts or in the process", function()
    without_trace(function()
      local run = new_run { align = 5000, total = 5000, micro = 4 }
      run:build_stage()
      local bytes, resident = {}, {}
      for step = 1, 1000 do
        run:advance()
        if step % 200 == 0 then
          collect()
          bytes[#bytes + 1], resident[#resident + 1] = held(), tonumber(C.pg_resident_bytes())
        end
      end
      for k = 2, #bytes do assert.equal(bytes[1], bytes[k]) end
      assert.is_true(resident[#resident] - resident[1] < 2 * 2 ^ 20,
        ("%.1f MiB more"):format((resident[#resident] - resident[1]) / 2 ^ 20))
      run:free()
    end)
  end)
end)

describe("memory", function()
  it("is all given back by a run's end, many times over", function()
    without_trace(tiny.train, { align = 1, total = 2 })
    local before = held()
    for _ = 1, 12 do without_trace(tiny.train, { align = 1, total = 2, angle = true }) end
    assert.equal(before, held())
  end)

  it("is all given back by models that come and go", function()
    collect()
    local before = held()
    for _ = 1, 20 do
      without_trace(function()
        local recipe = tiny.recipe {}
        recipe.student:materialise { seed = 1 }
        recipe.teacher:load {}
        recipe.student:dematerialise()
        recipe.teacher:dematerialise()
      end)
    end
    assert.equal(before, held())
  end)

  it("that is refused at any allocation is an error, not a crash, and leaves nothing behind", function()
    without_trace(tiny.train, { align = 2, total = 3, angle = true }) -- what is made once, is made
    local before, refused, passed = held(), 0, false
    local allocation = 0
    while not passed do
      without_trace(function()
        local recipe = tiny.recipe { align = 2, total = 3, angle = true }
        C.pg_memory_fail_after(allocation)
        local fine, message = pcall(tiny.train, nil, { recipe = recipe })
        C.pg_memory_fail_after(-1)
        if fine then passed = true
        else
          refused = refused + 1
          assert.matches("memory", message)
        end
      end)
      assert.equal(before, held(), "after allocation " .. allocation)
      allocation = allocation + (allocation < 40 and 1 or 37)
    end
    assert.is_true(refused > 40, refused .. " allocations refused")
  end)

  it("of tensors is counted by their storage", function()
    collect()
    local before = held()
    local t = tensor.empty({ 1000 }, "float32")
    local view = t:narrow(1, 1, 10)
    assert.equal(before + 4000, held())
    t:free()
    assert.equal(before + 4000, held())
    view:free()
    assert.equal(before, held())
    assert.is_truthy(ffi.string(C.pg_purpose_name(1)))
  end)
end)
