--- A whole step, as a run makes it: the stage's program and the update, against PyTorch (tests/oracle/README.md,
--- haste_step), in pieces, recomputed, with other numbers of threads.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local haste_step = require "tests.lua.haste_step"
local oracle = require "tests.lua.oracle"
local Run = require "perigee.train.run"
local tiny = require "tests.lua.tiny"

local ops, tensor = core.ops, core.tensor
local fixture = haste_step.fixture

local function slice(flat, entry) return flat:narrow(1, entry.offset + 1, entry.numel):reshape(entry.shape) end

--- The keys' third of a qkv bias has a gradient of zero in exact arithmetic; AdamW makes noise of it: left out.
local function without_keys(name, t)
  t = t:reshape { t:numel() }
  if not name:match "qkv%.bias$" then return t end
  local width = t.shape[1] / 3
  return ops.concat({ t:narrow(1, 1, width), t:narrow(1, 2 * width + 1, width) }, 1)
end

local function near_all(public, kind, prefix, bound)
  local count = 0
  for name, where in pairs(public) do
    local expected = fixture[prefix .. "." .. name]
    if expected then
      count = count + 1
      local actual = slice(where.group[kind] or where.group.moments[kind], where.entry)
      oracle.near(prefix .. "." .. name, without_keys(name, actual), without_keys(name, expected), bound)
    end
  end
  return count
end

local function three_steps(options, bound)
  local run, public = haste_step.run(options)
  local start = {}
  for _, group in ipairs(run.groups) do start[group] = group.parameters:clone() end
  local total = 0
  for name in pairs(public) do
    total = total + 1
    assert.is_truthy(fixture["grad." .. name], name)
  end
  for step = 1, 3 do
    run:advance()
    for _, name in ipairs { "denoise", "features", "attention" } do
      local expected = fixture[("step%d.%s"):format(step, name)]:totable()[1]
      assert.is_true(math.abs(run.losses[name] - expected) <= bound * math.abs(expected),
        ("step %d: %s"):format(step, name))
    end
    if step == 1 then assert.equal(total, near_all(public, "gradients", "grad", bound)) end
    local expected = fixture[("step%d.gradient_norm"):format(step)]:totable()[1]
    assert.is_true(math.abs(run.gradient_norm - expected) <= bound * expected,
      ("step %d: the gradient's norm"):format(step))
    if step == 1 then
      assert.is_true(near_all(public, "parameters", "after1", bound) > 10)
      assert.is_true(near_all(public, "average", "ema1", bound) > 10)
    end
  end
  assert.equal(total, near_all(public, "parameters", "after3", bound))
  assert.equal(total, near_all(public, "average", "ema3", bound))
  assert.is_true(near_all(public, "first_moment", "m3", bound) > 5)
  assert.is_true(near_all(public, "second_moment", "v3", 2 * bound) > 5)
  -- the way that they went, which is short beside them
  for name, where in pairs(public) do
    local before = slice(start[where.group], where.entry)
    oracle.near("after3 - start " .. name, without_keys(name, slice(where.group.parameters, where.entry) - before),
      without_keys(name, fixture["after3." .. name]:reshape(before.shape) - before), 1e-3)
  end
  run:free()
end

describe("a run's step", function()
  it("has PyTorch's losses, gradients, moments, averages and parameters over three steps", function()
    three_steps({}, 1e-5)
  end)

  it("has them in pieces of two, with recomputed blocks", function()
    three_steps({ micro = 2, recompute = true }, 1e-5)
  end)

  it("has them in float64", function() three_steps({ precision = "float64" }, 1e-5) end)
end)

--- All gradients of a tiny run's first steps, as bytes, and its losses; everything it draws, labels dropped and
--- pictures mirrored included.
local function gradients_of(options, how)
  how = how or {}
  door.check(door.C.pg_threads_set(how.threads or 1))
  local run = Run.new(tiny.recipe(options), { trace = how.trace })
  for _, group in ipairs(run.groups) do -- the zero output layers would hide the others' gradients
    local state = tensor.tensor({ 11, 0, 0 }, "int64")
    local noise = ops.random_normal(group.parameters.shape,
      { state = state, purpose = group.prefix, dtype = group.dtype })
    group.parameters:copy_(group.parameters + noise * 0.1)
    group:refresh()
  end
  run:build_stage()
  local found
  for _ = 1, how.steps or 1 do run:advance() end
  found = run.losses
  door.check(door.C.pg_threads_set(1))
  local gradients = {}
  for _, group in ipairs(run.groups) do gradients[group.prefix] = group.gradients:clone() end
  local arena = run.plan.arena_bytes
  run:free()
  return gradients, found, arena
end

local function bytes(t)
  local array, n = tensor.to_host(t)
  return require("ffi").string(array, n * door.dtype_bytes[t.dtype])
end

local function assert_near(expected, actual, bound)
  for name, t in pairs(expected) do oracle.near(name, actual[name], t, bound) end
end

describe("a step", function()
  for _, recompute in ipairs { false, true } do
    it("is the same without fusion" .. (recompute and ", blocks recomputed" or ""), function()
      local options = { precision = "float64", recompute = recompute }
      local fused, losses_fused = gradients_of(options)
      local plain, losses_plain = gradients_of(options, { trace = { fuse = false } })
      assert_near(plain, fused, 1e-12)
      for name, value in pairs(losses_plain) do assert.is_true(math.abs(value - losses_fused[name]) < 1e-12) end
      local single = gradients_of({ recompute = recompute }, { trace = { fuse = false } })
      assert_near(single, (gradients_of { recompute = recompute }))
    end)
  end

  for _, micro in ipairs { 1, 2, 4, 8 } do
    it(("in pieces of %d draws the same numbers and makes the same gradients as in one pass"):format(micro), function()
      local whole, losses_whole = gradients_of { batch = 16, micro = 16, precision = "float64" }
      local pieces, losses_pieces = gradients_of { batch = 16, micro = micro, precision = "float64" }
      assert_near(whole, pieces, 1e-12)
      for name, value in pairs(losses_whole) do assert.is_true(math.abs(value - losses_pieces[name]) < 1e-12, name) end
      local single = gradients_of { batch = 16, micro = 16 }
      assert_near(single, (gradients_of { batch = 16, micro = micro }), 2e-6)
    end)
  end

  for _, precision in ipairs { "float32", "bf16", "float64" } do
    it("with recomputed blocks has the same bits in less memory, " .. precision, function()
      local kept, _, memory = gradients_of { precision = precision, depth = 6, batch = 16, micro = 16 }
      local again, _, less = gradients_of { precision = precision, depth = 6, batch = 16, micro = 16, recompute = true }
      for name, t in pairs(kept) do assert.is_true(bytes(t) == bytes(again[name]), name) end
      assert.is_true(less < 0.7 * memory, ("%d bytes, %d without"):format(less, memory))
    end)

    it("has the same bits with one, two and three threads, " .. precision, function()
      local options = { precision = precision, batch = 16, micro = 8, width = 96 }
      local one = gradients_of(options, { threads = 1, steps = 3 })
      for threads = 2, 3 do
        local several = gradients_of(options, { threads = threads, steps = 3 })
        for name, t in pairs(one) do assert.is_true(bytes(t) == bytes(several[name]), name) end
      end
    end)
  end

  it("takes weights, rate, decay, clip and EMA as inputs: no retrace", function()
    local function change(turn)
      local run = Run.new(tiny.recipe {})
      run:build_stage()
      local program = run.train_step
      run:advance()
      turn(run)
      run:advance()
      local norm = run.gradient_norm
      assert.equal(program, run.train_step)
      local student = run.groups[1]
      local result = bytes(student.parameters) .. bytes(student.average)
      run:free()
      return result, norm
    end
    local plain, plain_norm = change(function() end)
    for _, turn in ipairs {
      function(run) run.optim.lr = 2e-3 end,
      function(run) run.optim.decay = 0.5 end,
      function(run) run.optim.clip = 1e-3 end,
      function(run) run.ema = 0.1 end,
      function(run) run.stage.losses.features.weight = 40 end,
    } do
      local turned, norm = change(turn)
      assert.is_false(turned == plain)
      assert.equal(turn ~= nil, norm ~= nil and plain_norm ~= nil)
    end
  end)
end)
