-- Memory: a teacher's bytes come back, nothing grows, nothing leaks.
local door = require "perigee.core.ffi"
local ffi = require "ffi"
local memory = require "tests.lua.memory"
local Run = require "perigee.train.run"
local tensor = require "perigee.core.tensor"
local tiny = require "tests.lua.tiny"

local C = door.C
local collect, held, without_trace = memory.collect, memory.held, memory.without_trace

describe("the memory of a step", function()
  it("has no teacher in a stage that needs none: its bytes are returned", function()
    collect()
    without_trace(function()
      local run = Run.new(tiny.recipe {})
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
      local run = Run.new(tiny.recipe { align = 5000, total = 5000, micro = 4 })
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
