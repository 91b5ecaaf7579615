--- perigee bench: what a call belongs to, what aligning adds, and the command on a tiny recipe.
local json = require "perigee.io.json"
local profile = require "perigee.bench.profile"
local tiny = require "tests.lua.tiny"

describe("profile", function()
  it("has quantiles", function()
    assert.equal(2, profile.quantile({ 3, 1, 2 }, 0.5))
    assert.equal(2.5, profile.quantile({ 4, 1, 3, 2 }, 0.5))
    assert.equal(1.75, profile.quantile({ 4, 1, 3, 2 }, 0.25))
    assert.equal(7, profile.quantile({ 7 }, 0.75))
  end)

  it("says what each call belongs to", function()
    local recipe = tiny.recipe()
    local run = profile.open(recipe, { synthetic = true })
    local parts, by_op = profile.parts(run.plan, recipe), {}
    for k, call in ipairs(run.plan.calls) do
      local part, name = parts[k], call.node.definition.name
      by_op[part .. " " .. name] = (by_op[part .. " " .. name] or 0) + 1
    end
    assert.equal(#run.plan.calls, #parts)
    assert.equal(3 + 3 + 3, by_op["projector matmul"])  -- forward, to the input, to the weights: three layers each
    assert.equal(4, by_op["teacher attention"])         -- its blocks
    assert.equal(3, by_op["student attention"])
    assert.equal(1, by_op["alignment feature_alignment"])
    assert.equal(1 + 4 * 4, by_op["teacher matmul"])    -- patches, and four layers a block
    for name in pairs(by_op) do
      if name:find "backward" then assert.is_nil(name:find "^teacher") end
    end
    run:free()

    recipe = tiny.recipe()
    run = profile.open(recipe, { synthetic = true, stage = 2 })
    for _, part in ipairs(profile.parts(run.plan, recipe)) do assert.equal("student", part) end
    run:free()
  end)

  it("counts what aligning adds to a step, and not what it replaces", function()
    local function row(part, signature, seconds) return { part = part, signature = signature, seconds = seconds } end
    local free = { row("student", "a", 1), row("student", "b", 2), row("student", "b", 4), row("update", "u", 8) }
    local aligned = {
      row("teacher", "t", 16), row("projector", "p", 32), row("student", "a", 3), row("student", "b", 3),
      row("student", "b with alignment", 10), row("alignment", "l", 0.5), row("update", "u", 80),
    }
    assert.is_near(10 + 0.5 - 3, profile.alignment_seconds(aligned, free), 1e-12) -- one b less, whose mean is 3
    assert.is_near(0, profile.alignment_seconds(free, free), 1e-12)
  end)

  it("times every call of a step, and the step continues as if nobody looked", function()
    local function losses_after(look)
      local run = profile.open(tiny.recipe { micro = 4 }, { synthetic = true })
      local rows, loader
      if look then rows, loader = profile.profile(run, 2) else profile.seconds(run, 2) end
      profile.seconds(run, 1)
      local calls, known = 0, {}
      for _, call in ipairs(run.train_step.executable.calls) do
        calls, known[call] = calls + (known[call] and 0 or 1), true
      end
      assert.equal(#run.train_step.executable.calls, calls + #run.plan.calls) -- two pieces
      local losses, norm = run.losses, run.gradient_norm
      run:free()
      return losses, norm, rows, loader, calls
    end
    local losses, norm = losses_after(false)
    local seen, seen_norm, rows, loader, calls = losses_after(true)
    assert.same(losses, seen)
    assert.equal(norm, seen_norm)
    assert.equal(calls, #rows)
    assert.is_true(loader >= 0)
    for _, entry in ipairs(rows) do assert.is_true(entry.seconds > 0 and entry.bytes >= 0) end
  end)
end)

describe("perigee bench", function()
  it("measures every stage and writes all of it", function()
    local path = os.tmpname()
    local status, text = tiny.perigee(("bench tests/lua/recipes/tiny.lua --synthetic --steps 2 --profiled 1 --warmup 1 "
      .. "--calls 3 --json %s"):format(tiny.quote(path)))
    assert.equal(0, status, text)
    local found = json.read(path)
    os.remove(path)
    assert.truthy(text:find("random data and teacher", 1, true))
    assert.truthy(text:find("stage align: alignment's own ops take", 1, true))
    assert.equal(2, #found.stages)
    local align, free = found.stages[1], found.stages[2]
    assert.equal("align", align.stage)
    assert.is_true(align.parts_ms.teacher > 0 and align.parts_ms.projector > 0 and align.parts_ms.update > 0)
    assert.is_nil(free.parts_ms.teacher)
    assert.is_number(align.alignment_share)
    assert.is_true(free.tensor_bytes > 0 and free.tensor_bytes < align.tensor_bytes)
    local total = 0
    for _, group in ipairs(free.ops) do total = total + group.seconds * 1e3 end
    assert.is_near(free.parts_ms.student + free.parts_ms.update, total, 1e-6 * total)
  end)

  it("says which stages there are", function()
    local status, text = tiny.perigee "bench tests/lua/recipes/tiny.lua --stage aling"
    assert.equal(1, status)
    assert.truthy(text:find("unknown stage 'aling'; expected one of align, free", 1, true))
  end)

  it("says that bf16 is no faster where it isn't, and that random data have no cached teacher", function()
    local slow = not require("perigee.core.device").cpu_multiplies_bfloat16()
    local status, text = tiny.perigee "bench tests/lua/recipes/tiny.lua --precision bf16 --synthetic --cache"
    assert.equal(1, status)
    assert.equal(slow, text:find("which is no faster than float32", 1, true) ~= nil)
    assert.truthy(text:find("perigee: random data have no cached teacher", 1, true), text)
  end)
end)
