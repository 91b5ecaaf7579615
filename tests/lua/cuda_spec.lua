--- The CUDA device's host side over tests/cuda_on_cpu: queues, graphs, readings, choices, memory, training. Pending
--- where its plugin isn't built (cmake --build build --target perigee_cuda_on_cpu).
local ffi = require "ffi"
local lfs = require "lfs"
local door = require "perigee.core.ffi"

local build = os.getenv "PERIGEE_BUILD" or door.home .. "/build"
local plugin = os.getenv "PERIGEE_CUDA_LIBRARY" or build .. "/runtime/libperigee_cuda_on_cpu.so"
local there = lfs.attributes(plugin, "mode") == "file"
ffi.cdef [[
  int setenv(const char *name, const char *value, int overwrite);
  int64_t cuda_on_cpu_waits(void);
  int64_t cuda_on_cpu_queued(void);
  void cuda_on_cpu_fail_after(int64_t kernels);
]]
if there then ffi.C.setenv("PERIGEE_CUDA_LIBRARY", plugin, 1) end

local core = require "perigee.core"
local device = require "perigee.core.device"
local json = require "perigee.io.json"
local harness = dofile(door.home .. "/tests/lua/ops_harness.lua")
local C, ops, tensor = door.C, core.ops, core.tensor

--- A test that needs the plugin, and may need kernels that are not there yet.
local function on_cuda(name, body)
  it(name, function()
    if not there then return pending "the plugin of tests/cuda_on_cpu is not built" end
    local fine, message = pcall(body)
    if fine then return end
    local kernel = harness.missing_kernel(message)
    if kernel then return pending("CUDA has no kernel " .. kernel) end
    error(message, 0)
  end)
end

local function numbers(t) return t:totable() end

describe("the CUDA device", function()
  on_cuda("describes itself", function()
    assert.matches("compute capability 9.0", device.description "cuda")
    local free, total = device.memory "cuda"
    assert.is_true(free > 0 and free <= total)
  end)

  on_cuda("refuses float64 in words", function()
    local fine, message = pcall(device.expect_dtype, "cuda", "float64")
    assert.is_false(fine)
    assert.matches("does not compute in float64", message)
  end)

  on_cuda("replays a captured graph on inputs at other addresses", function()
    local weight = tensor.tensor({ { 1, 2, 3 }, { -1, 0.5, 2 } })
    local function body(x, w) return ops.linear(x, w, nil, { activation = "gelu_tanh" }) end
    local compiled, executable = core.compile(body, { tensor.empty({ 4, 3 }, "float32"), weight }, { device = "cuda" })
    local there_weight, kept = weight:to "cuda", {}
    for k = 1, 5 do
      local rows = {}
      for r = 1, 4 do rows[r] = { r * k / 10, -k / 5, r - k / 3 } end
      local x = tensor.tensor(rows)
      kept[k] = x:to "cuda" -- all alive, so all at addresses of their own
      local expected, found = numbers(body(x, weight)), numbers(compiled(kept[k], there_weight))
      for r = 1, 4 do
        for c = 1, 2 do assert.is_true(math.abs(expected[r][c] - found[r][c]) < 1e-5) end
      end
      assert.same(numbers(x), numbers(kept[k]))
    end
    local rows = executable:profile()
    assert.equal("matmul", rows[1].op)
    assert.is_true(rows[1].seconds >= 0)
    executable:free()
  end)

  on_cuda("brings numbers home in the queue's order", function()
    local a, reading = tensor.tensor({ 1.5 }):to "cuda", require "perigee.core.reading"
    local first, second = reading.new("cuda", "float32", 2), reading.new("cuda", "float32", 1)
    first:add(1, a)
    a:copy_(tensor.tensor { -2 })
    first:add(2, a)
    first:close()
    a:copy_(tensor.tensor { 7 })
    second:add(1, a)
    second:close()
    assert.same({ 7 }, second:wait())
    assert.same({ 1.5, -2 }, first:wait())
    first:free()
    second:free()
  end)

  on_cuda("keeps its choice of an algorithm", function()
    local function plan()
      return core.compile(function(x) return ops.matmul(x, tensor.tensor { { 1, 2 }, { 3, 4 } }) end,
        { tensor.empty({ 3, 2 }, "float32") }, { device = "cuda" })
    end
    plan()
    local choices = require "perigee.record.choices"
    local before = choices.all()
    local key
    for name in pairs(before) do if name:find("/3x2x2NN/", 1, true) then key = name end end
    assert.is_string(key)
    local forced = before[key]:gsub("^%d+:%x%x", function(head)
      return head:match "^%d+:" .. (head:match "e1$" and "e2" or "e1")
    end)
    if forced:match "^0:e2" then forced = forced:gsub("^0:", "1024:") end -- the other algorithm has a workspace
    choices.take { [key] = forced }
    plan()
    assert.equal(forced, choices.all()[key])
    choices.take { [key] = "0:ff" } -- no algorithm: it is chosen again
    plan()
    assert.is_true(choices.all()[key] ~= "0:ff")
  end)

  on_cuda("makes a bias's gradient along with its weight's, and apart where that was found faster", function()
    local choices = require "perigee.record.choices"
    local x = tensor.tensor { { 1, 2, 3, 4, 5 }, { -1, 0.5, 2, 0, 1 }, { 3, 1, -2, 2, 0.25 } }
    local dy = tensor.tensor { { 1, 2, 3, 4 }, { 0.5, -1, 2, 0 }, { 2, 2, -4, 1 } }
    local function gradients()
      local p = core.program.new "layer"
      local seed, weight, bias = p:input("dy", { 3, 4 }), p:input("weight", { 4, 5 }), p:input("bias", { 4 })
      local y = ops.linear(p:input("x", { 3, 5 }), weight, bias)
      local found = core.gradient(p, { y }, { seed }, { weight, bias })
      local executable = core.executable.compile(p,
        { { name = "weight", value = found[1] }, { name = "bias", value = found[2] } }, { device = "cuda" })
      assert.equal(1, #executable.plan.calls)
      local out = executable:run { x = x:to "cuda", dy = dy:to "cuda" }
      assert.same({ 3.5, 3, 1, 5 }, numbers(out.bias))
      assert.same({ 6.5, 4.25, 0, 8, 6 }, numbers(out.weight)[1])
      executable:free()
    end
    gradients()
    local key, plain
    for name, value in pairs(choices.all()) do
      if name:find("/float32/4x5x3TN/", 1, true) then
        if name:find("/512/", 1, true) then key = name elseif name:find("/1/", 1, true) then plain = value end
      end
    end
    for _, forced in ipairs { "none", plain } do
      choices.take { [key] = forced }
      gradients()
      assert.equal(forced, choices.all()[key])
    end
  end)

  on_cuda("has GELU and its derivative in bfloat16 as epilogues, and as passes where those are faster", function()
    local choices = require "perigee.record.choices"
    local function random(shape, seed)
      local state = tensor.tensor({ seed, 0, 0 }, "int64")
      return ops.random_normal(shape, { state = state, purpose = "test" }):to "bfloat16"
    end
    local function gradients(where)
      local p = core.program.new "two layers"
      local x, w1 = p:input("x", { 24, 40 }, "bfloat16"), p:input("w1", { 56, 40 }, "bfloat16")
      local b1, w2 = p:input("b1", { 56 }, "bfloat16"), p:input("w2", { 16, 56 }, "bfloat16")
      local y = ops.linear(ops.linear(x, w1, b1, { activation = "gelu_tanh" }), w2)
      local found = core.gradient(p, { y }, { ops.full_like(y, 1) }, { w1, w2 })
      local executable = core.executable.compile(p,
        { { name = "w1", value = found[1] }, { name = "w2", value = found[2] } }, { device = where })
      local out = executable:run { x = random({ 24, 40 }, 1):to(where),
        w1 = (random({ 56, 40 }, 2) * 0.2):to(where), b1 = random({ 56 }, 3):to(where),
        w2 = random({ 16, 56 }, 4):to(where) }
      local list = { out.w1:to "cpu":to "float32":clone(), out.w2:to "cpu":to "float32":clone() }
      executable:free()
      return list
    end
    local expected, keys = gradients "cpu", {} -- of GELU that saves its input, and of its derivative
    gradients "cuda"
    for key in pairs(choices.all()) do
      local fused = key:match "^matmul/.*/bfloat16/[%dx]+[NT][NT]/.*/(%d+)/16$"
      if fused == "160" or fused == "164" or fused == "192" then keys[#keys + 1] = key end
    end
    assert.equal(2, #keys)
    for _, forced in ipairs { "none", "0:e101" } do
      local text = forced == "none" and forced
        or forced .. ("00"):rep(6) .. ("1000000000000000"):rep(6) .. ("00"):rep(8) -- as the stand-in has it
      for _, key in ipairs(keys) do choices.take { [key] = text } end
      for k, found in ipairs(gradients "cuda") do
        local apart = ops.max(ops.abs(found - expected[k])):item()
        assert.is_true(apart < 2e-2 * ops.max(ops.abs(expected[k])):item(), tostring(apart))
      end
      for _, key in ipairs(keys) do assert.equal(text, choices.all()[key]) end
    end
  end)

  on_cuda("names the op and the shapes of a call that fails", function()
    local x = tensor.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }):to "cuda"
    local compiled, executable = core.compile(function(v) return ops.softmax(v * 2) end, { x }, { device = "cuda" })
    ffi.C.setenv("PERIGEE_CUDA_CHECK", "1", 1)
    ffi.load(plugin).cuda_on_cpu_fail_after(1)
    local fine, message = pcall(compiled, x)
    ffi.C.setenv("PERIGEE_CUDA_CHECK", "0", 1)
    assert.is_false(fine)
    assert.matches("softmax of %[2,3%], %[2,3%]: cuda: cudaDeviceSynchronize: .*%(cudaErrorLaunchFailure%)", message)
    assert.is_near(1, numbers(compiled(x):sum(2))[1], 1e-6)
    executable:free()
  end)

  on_cuda("says what is held and planned when its memory is spent", function()
    C.pg_memory_expect(C.PG_CUDA, 3 * 2 ^ 30)
    local fine, message = pcall(tensor.empty, { 2 ^ 34 }, "float32", { device = "cuda", purpose = "optimizer" })
    C.pg_memory_expect(C.PG_CUDA, 0)
    assert.is_false(fine)
    assert.matches("no 65536.0 MiB left for optimizer", message)
    assert.matches("planned in all: 3072.0", message)
    assert.matches("the device has [%d.]+ of 8192.0 free", message)
  end)
end)

describe("a block's biases on the CUDA device", function()
  --- Two linear layers with GELU between them behind a gate: the gradients of weights and biases, and the plan's calls.
  local function gradients(where, dtype)
    local p, named = core.program.new "block", {}
    local function input(name, shape, seed)
      local t = ops.random_normal(shape, { state = tensor.tensor({ seed, 0, 0 }, "int64"), purpose = name }):to(dtype)
      named[name] = t:to(where)
      return p:input(name, shape, dtype)
    end
    local x, dout, gate = input("x", { 2, 6, 16 }, 1), input("dout", { 2, 6, 16 }, 2), input("gate", { 2, 1, 16 }, 3)
    local w1, b1 = input("w1", { 24, 16 }, 4), input("b1", { 24 }, 5)
    local w2, b2 = input("w2", { 16, 24 }, 6), input("b2", { 16 }, 7)
    local y = ops.gated_residual(x, gate, ops.linear(ops.linear(x, w1, b1, { activation = "gelu_tanh" }), w2, b2))
    local outputs = {}
    for k, v in ipairs(core.gradient(p, { y }, { dout }, { w1, b1, w2, b2 })) do
      outputs[k] = { name = ({ "w1", "b1", "w2", "b2" })[k], value = v }
    end
    local executable = core.executable.compile(p, outputs, { device = where })
    local read = {}
    for name, t in pairs(executable:run(named)) do read[name] = t:to "cpu":to "float64" end
    return read, executable.plan.calls
  end

  --- Calls of an op whose output of that name somebody reads.
  local function makers(calls, op, output)
    local count = 0
    for _, call in ipairs(calls) do
      for k, name in ipairs(call.node.definition.outputs) do
        if call.node.definition.name == op and name == output and call.values[k] then count = count + 1 end
      end
    end
    return count
  end

  on_cuda("are summed where what they are summed of is written", function()
    for _, dtype in ipairs { "float32", "bfloat16" } do
      local expected, got, calls = gradients("cpu", "float32"), gradients("cuda", dtype)
      local low = dtype == "bfloat16"
      assert.equal(1, makers(calls, "gated_residual_backward", "dbias")) -- b2
      assert.equal(low and 1 or 0, makers(calls, "matmul", "column_sums")) -- b1
      assert.equal(low and 0 or 1, makers(calls, "matmul", "sums"))
      for name, t in pairs(expected) do
        local off = (got[name] - t):abs():max():item() / t:abs():max():item()
        assert.is_true(off < (low and 2e-2 or 1e-5), ("%s in %s: %g off"):format(name, dtype, off))
      end
    end
  end)
end)

describe("training on the CUDA device", function()
  local price, tiny, folder = require "perigee.cost.price", require "tests.lua.tiny", nil
  local function held_for(purpose) return tonumber(C.pg_memory_now(C.PG_CUDA, door.purpose_code[purpose])) end
  local function losses(how)
    local seen, found = require "perigee.train", {}
    local run = seen.train(tiny.recipe { total = 8, align = 5, checkpoint = 4 },
      { folder = how.folder, device = how.device, steps = how.steps, resume = how.resume, quiet = true })
    for name, value in pairs(run.losses) do found[name] = value end
    found.norm = run.gradient_norm
    run:free()
    return found
  end
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    ffi.C.setenv("PERIGEE_CACHE", folder .. "/cache", 1)
  end)
  after_each(function() os.execute("rm -rf " .. tiny.quote(folder)) end)

  on_cuda("follows the CPU's losses through both stages", function()
    local here, away = losses { device = "cpu", steps = 8 }, losses { device = "cuda", steps = 8 }
    for name, value in pairs(here) do
      assert.is_true(math.abs(away[name] - value) < 1e-3 * (1 + math.abs(value)), name)
    end
  end)

  on_cuda("continues from a checkpoint bit for bit", function()
    losses { device = "cuda", folder = folder .. "/a", steps = 8 }
    losses { device = "cuda", folder = folder .. "/b", steps = 4 }
    losses { device = "cuda", folder = folder .. "/b", steps = 8, resume = true }
    assert.equal(tiny.checkpoint(folder .. "/a", 8), tiny.checkpoint(folder .. "/b", 8))
  end)

  on_cuda("stops at an error in mid-run with the step named and the last checkpoint as it was", function()
    local weights = door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"
    local line = ("train %s --set %s --device cuda --runs %s"):format(tiny.quote(tiny.path),
      tiny.quote("weights=" .. weights), tiny.quote(folder))
    local status, text = tiny.perigee(line, ("CUDA_ON_CPU_FAIL_GRAPH=5 PERIGEE_CUDA_LIBRARY='%s'"):format(plugin))
    assert.equal(1, status, text)
    assert.matches("perigee: step 6: cuda: [%w ]+: .*%(cudaErrorLaunchFailure%); the run stops and its last checkpoint "
      .. "stands\n$", text)
    local state = require("perigee.record.checkpoint").open(folder .. "/tiny")
    assert.equal(4, state.step)
  end)

  on_cuda("waits in a step for an earlier one's numbers at most", function()
    local fibres = ffi.load(plugin)
    local run = require("perigee.train.run").new(tiny.recipe {}, { device = "cuda" })
    run:enter_stage(2)
    for _ = 1, 3 do run:advance() end -- call by call, captured, replayed
    local before = fibres.cuda_on_cpu_waits()
    for _ = 1, 4 do
      run:advance()
      assert.is_true(tonumber(fibres.cuda_on_cpu_queued()) >= #run.train_step.executable.calls)
    end
    assert.equal(0, tonumber(fibres.cuda_on_cpu_waits() - before))
    run:free()
    local function waits_in(steps) -- of a whole run
      local start = fibres.cuda_on_cpu_waits()
      local recipe = tiny.recipe { align = 2, total = steps, checkpoint = 0 }
      require("perigee.train").train(recipe, { device = "cuda", quiet = true }):free()
      return tonumber(fibres.cuda_on_cpu_waits() - start)
    end
    waits_in(4) -- chooses algorithms
    assert.equal(waits_in(4), waits_in(9))
  end)

  on_cuda("trains in bfloat16, in pieces, with what is kept of the teacher, and gives everything back", function()
    local function held()
      for _ = 1, 3 do collectgarbage() end
      return device.held "cuda"
    end
    local before = held()
    local run = require("perigee.train").train(tiny.recipe { total = 4, align = 3, precision = "bf16", micro = 4,
      cache = true }, { device = "cuda", quiet = true })
    assert.is_true(run.step == 4 and run.gradient_norm > 0)
    run:free()
    run = nil -- luacheck: ignore
    assert.equal(before, held())
  end)

  local function recipe_that(recompute, options)
    local recipe = tiny.recipe(options)
    recipe.recompute = recompute
    return recipe
  end

  for _, case in ipairs { { "float32", 8, 2, true }, { "bf16", 8, 8, false } } do
    on_cuda(("holds what was planned with its kernels: %s, %d images in pieces of %d"):format(unpack(case)), function()
      local options, recompute = { precision = case[1], batch = case[2], micro = case[3] }, case[4]
      local planned = price.recipe(recipe_that(recompute, options), { device = "h100" })
      local run = require("perigee.train.run").new(recipe_that(recompute, options), { device = "cuda" })
      for stage = 1, 2 do
        assert.equal("cuda", planned[stage].planned_for)
        run:enter_stage(stage)
        for _ = 1, 3 do run:advance() end
        for _, purpose in ipairs { "arena", "parameters", "gradients", "optimizer", "ema", "teacher", "data" } do
          local bytes, figure = held_for(purpose), planned[stage].memory[purpose]
          assert.is_true(math.abs(bytes - figure) <= math.max(0.005 * figure, 4096),
            ("stage %d, %s: %d bytes, planned %d"):format(stage, purpose, bytes, figure))
        end
      end
      run:free()
    end)
  end

  --- A run through the end of its alignment: what is left on a device, and what the log says of it.
  local function ends_its_alignment(where, machine)
    local pace = require "perigee.train.pace"
    local recipe = recipe_that(where == "cpu", {}) -- a GPU has room to keep all
    local planned, skipped, window = price.recipe(recipe, { device = machine }), pace.SKIPPED, pace.WINDOW
    local function left(purpose)
      return tonumber(C.pg_memory_now(door.device_code[where], door.purpose_code[purpose]))
    end
    pace.SKIPPED, pace.WINDOW = 1, 2 -- luacheck: ignore 122
    local fine, run = pcall(require("perigee.train").train, tiny.recipe { align = 5, total = 10 },
      { folder = folder .. "/run", device = where, quiet = true })
    pace.SKIPPED, pace.WINDOW = skipped, window -- luacheck: ignore 122
    assert(fine, run)
    assert.equal(0, left "teacher")
    assert.is_true(math.abs(left "arena" - planned[2].memory.arena) <= 4096)
    run:free()
    local ended, gained
    for line in io.lines(folder .. "/run/events.jsonl") do
      local event = json.decode(line)
      if event.event == "stage" and event.from == "align" then ended = event end
      if event.event == "pace" then gained = event end
    end
    local least = planned[1].memory.teacher + planned[1].memory.arena - planned[2].memory.arena
    assert.is_true(ended.freed_mib * 2 ^ 20 >= 0.99 * least,
      ("%g MiB, of the teacher and the arena %g"):format(ended.freed_mib, least / 2 ^ 20))
    assert.equal("free", gained.stage)
    assert.is_true(gained.seconds_before > 0 and gained.seconds > 0)
  end
  on_cuda("gives teacher and arena back where the alignment ends, and says what that is worth", function()
    ends_its_alignment("cuda", "h100")
  end)
  it("does so on the CPU", function() ends_its_alignment("cpu", "cpu") end)

  --- Runs `body` where the device has so many bytes free besides its reserve.
  local function with_free(free, body)
    local memory = device.memory
    device.memory = function() return free + 2 ^ 29, 2 ^ 33 end -- of which 0.5 GiB are reserved
    local fine, result, more = pcall(body)
    device.memory = memory
    return fine, result, more
  end

  --- A recipe that says neither micro nor recompute.
  local function open_recipe(options)
    local recipe = tiny.recipe(options)
    recipe.micro, recipe.leaves_micro = recipe.batch, true
    return recipe
  end

  --- What the stage that takes most is planned to take.
  local function planned_for(recipe, micro, recompute)
    return require("perigee.cost.pieces").price(recipe, micro, recompute, { device = "h100" }).bytes
  end

  on_cuda("is refused where it does not fit, with what would", function()
    local fits = require "perigee.cost.fits"
    local function with(free, micro)
      return with_free(free, function() return fits.check(tiny.recipe { batch = 64, micro = micro or 64 }, "cuda") end)
    end
    local whole = tiny.recipe { batch = 64, micro = 64 }
    local needed, kept = planned_for(whole, 64, true), planned_for(whole, 64, false)
    assert.is_true(kept > 1.05 * needed)
    local _, roomy = with(kept)
    assert.is_false(roomy.recompute)
    local _, tight = with(0.5 * (needed + kept))
    assert.is_true(tight.recompute)
    assert.is_true((with(needed)))
    local fine, message = with(0.6 * needed)
    assert.is_false(fine)
    assert.matches("stage align needs [%d.]+ MiB %(arena [%d.]+ MiB, .*; cuda has [%d.]+ MiB of 8.00 GiB free, "
      .. "besides 512.0 MiB for its libraries", message)
    assert.matches("These would fit: .*micro = %d+, the batch in %d+ pieces", message)
    local _, hopeless = with(2 ^ 16, 2)
    assert.matches("No smaller piece of the batch would fit either", hopeless)
  end)

  on_cuda("takes the pieces that fit where the recipe leaves them open, and says so", function()
    local fits = require "perigee.cost.fits"
    local function chosen(free, recipe)
      local fine, got, said = with_free(free, function() return fits.check(recipe, "cuda") end)
      return fine and ("%d %s"):format(got.micro, got.recompute and "again" or "kept") or got, said
    end
    local recipe = open_recipe { batch = 64 }
    local whole, again = planned_for(recipe, 64, false), planned_for(recipe, 64, true)
    local half = planned_for(recipe, 32, false)
    local got, said = chosen(whole, recipe)
    assert.equal("64 kept", got)
    assert.matches("^64 images in one piece, values kept for the backward pass: [%d.]+ MiB of [%d.]+ MiB that cuda "
      .. "has free$", said)
    assert.is_true(half < again and again < whole) -- two pieces that keep values beat one that computes them again
    got, said = chosen(again, recipe)
    assert.equal("32 kept", got)
    assert.matches("^64 images in 2 pieces of 32, values kept", said)
    assert.equal("32 kept", (chosen(half, recipe)))
    local insisting = open_recipe { batch = 64 }
    insisting.recompute = true
    assert.equal("64 again", (chosen(whole, insisting)))
    assert.equal("64 kept", (chosen(whole, tiny.recipe { batch = 64, micro = 64 })))
    assert.matches("cuda has 64%.0 KiB of", (chosen(2 ^ 16, recipe)))
  end)

  on_cuda("continues in the pieces in which it began, bit for bit, whatever is free then", function()
    local function recipe()
      local open = open_recipe { total = 8, checkpoint = 4 }
      open.recompute = false
      return open
    end
    local half, sizes = planned_for(recipe(), 4, false), {}
    local function part(name, steps, free, more)
      local fine, run = with_free(free, function()
        return require("perigee.train").train(recipe(),
          { folder = folder .. name, device = "cuda", steps = steps, resume = more, quiet = true })
      end)
      assert(fine, run)
      sizes[#sizes + 1] = run.micro
      run:free()
    end
    part("/a", 8, half)
    part("/b", 4, half)
    part("/b", 8, 2 ^ 33, true)
    part("/c", 8, 2 ^ 33)
    assert.same({ 4, 4, 4, 8 }, sizes)
    local whole = tiny.checkpoint(folder .. "/a", 8)
    assert.is_true(whole == tiny.checkpoint(folder .. "/b", 8))
    assert.is_false(whole == tiny.checkpoint(folder .. "/c", 8))
  end)
end)

describe("without a GPU that will do", function()
  local function train(environment)
    return require("tests.lua.tiny").perigee("train recipes/quickstart.lua --device cuda",
      ("%s PERIGEE_CUDA_LIBRARY='%s'"):format(environment, plugin))
  end
  it("--device cuda says in one line that it is too old", function()
    if not there then return pending "the plugin of tests/cuda_on_cpu is not built" end
    local status, text = train "CUDA_ON_CPU_CAPABILITY=7.5"
    assert.equal(1, status)
    assert.equal("perigee: --device cuda: cuda: CUDA on the CPU has compute capability 7.5; the kernels, and bfloat16, "
      .. "need 8.0\n", text)
  end)
  it("--device cuda says so in one line", function()
    if not there then return pending "the plugin of tests/cuda_on_cpu is not built" end
    local status, text = train "CUDA_ON_CPU_DEVICES=0"
    assert.equal(1, status)
    assert.equal("perigee: --device cuda: cuda: no usable GPU and driver (cudaGetDeviceCount: "
      .. "cudaErrorNoDevice); perigee doctor says more\n", text)
  end)
end)
