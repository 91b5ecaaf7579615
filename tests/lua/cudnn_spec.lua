--- Attention and convolution by cuDNN, over tests/cuda_on_cpu: against the CPU at all sizes of tests/ops and more, and
--- the choice between it and our own kernels. Pending where the plugin isn't built (cmake --build build --target
--- perigee_cuda_on_cpu).
local ffi = require "ffi"
local lfs = require "lfs"
local door = require "perigee.core.ffi"

local build = os.getenv "PERIGEE_BUILD" or door.home .. "/build"
local plugin = os.getenv "PERIGEE_CUDA_LIBRARY" or build .. "/runtime/libperigee_cuda_on_cpu.so"
local there = lfs.attributes(plugin, "mode") == "file"
ffi.cdef [[
  int setenv(const char *name, const char *value, int overwrite);
  int unsetenv(const char *name);
  typedef struct { int64_t calls, captures, launches, theirs, ours_instead; } pg_queue_counts;
  void pg_queue_counted(pg_queue_counts *out);
]]
if there then ffi.C.setenv("PERIGEE_CUDA_LIBRARY", plugin, 1) end

local choices = require "perigee.record.choices"
local core = require "perigee.core"
local harness = dofile(door.home .. "/tests/lua/ops_harness.lua")
local ops, tensor = core.ops, core.tensor

--- Under PERIGEE_ATTENTION=wish, or what `variable` says; nil: timed.
local function on_cuda(name, wish, body, variable)
  variable = variable or "PERIGEE_ATTENTION"
  it(name, function()
    if not there then return pending "the plugin of tests/cuda_on_cpu is not built" end
    if wish then ffi.C.setenv(variable, wish, 1) end
    local fine, message = pcall(body)
    ffi.C.unsetenv(variable)
    if not fine then error(message, 0) end
  end)
end

--- bfloat16 numbers in [-2, 2], the same every time.
local function packed(shape)
  local numbers, n = {}, 1
  for _, size in ipairs(shape) do n = n * size end
  for k = 1, n do numbers[k] = 2 * math.sin(k * k % 10007) end
  return ops.reshape(tensor.tensor(numbers), shape):to "bfloat16"
end

--- Attention's output and the gradient of sum(output²), by a program of a device that runs `runs` times.
local function both(device, qkv, runs)
  local p = core.program.new "both"
  local x = p:input("qkv", qkv.shape, "bfloat16")
  local out = ops.attention(x)
  local loss = ops.sum((out * out):to "float32")
  local gradient = core.gradient(p, { loss }, { ops.full_like(loss, 1) }, { x })[1]
  local executable = core.executable.compile(p,
    { { name = "out", value = out }, { name = "gradient", value = gradient } }, { device = device })
  local found
  for _ = 1, runs or 1 do found = executable:run { qkv = qkv:to(device) } end
  local here, there_too = found.out:to "cpu":clone(), found.gradient:to "cpu":clone()
  executable:free()
  return here, there_too
end

local function most_apart(a, b)
  return ops.max(ops.abs(a:to "float32" - b:to "float32")):item()
end

--- The key and value of the one choice for a shape's forward or backward.
local function chosen(op, shape)
  local found
  for key, value in pairs(choices.all() or {}) do
    if key:find("^" .. op .. "/") and key:find("/" .. shape, 1, true) then
      assert.is_nil(found)
      found = { key, value }
    end
  end
  assert.is_table(found, op .. " of " .. shape .. " was not chosen")
  return found[1], found[2]
end

describe("cuDNN's attention", function()
  local chunk = assert(loadfile(door.home .. "/tests/ops/attention.lua"))
  for _, case in ipairs(chunk()) do
    if case.reference then
      on_cuda(case.name .. ": as on the CPU", "cudnn", function()
        harness.forward(case, "bfloat16", "cuda")
        harness.gradients(case, "bfloat16", "cuda")
      end)
    end
  end

  for _, shape in ipairs { { 1, 64, 3, 2, 16 }, { 2, 32, 3, 2, 72 }, { 1, 129, 3, 1, 40 }, { 3, 2, 3, 5, 128 } } do
    on_cuda(("forward and backward, %s, called one by one, captured and replayed"):format(table.concat(shape, "x")),
      "cudnn", function()
      local qkv = packed(shape)
      local out, gradient = both("cpu", qkv)
      local their_out, their_gradient = both("cuda", qkv, 4)
      assert.is_true(most_apart(out, their_out) < 2e-2)
      assert.is_true(most_apart(gradient, their_gradient) < 3e-2 * (1 + ops.max(ops.abs(gradient:to "float32")):item()))
    end)
  end

  on_cuda("serves what it is asked for, in a workspace that it would not be given otherwise", "cudnn", function()
    local function served(shape)
      local counts, before = ffi.new "pg_queue_counts", ffi.new "pg_queue_counts"
      door.C.pg_queue_counted(before)
      both("cuda", packed(shape))
      door.C.pg_queue_counted(counts)
      return tonumber(counts.theirs - before.theirs), tonumber(counts.ours_instead - before.ours_instead)
    end
    assert.same({ 2, 0 }, { served { 1, 200, 3, 1, 8 } })
    assert.same({ 0, 2 }, { served { 1, 16, 3, 1, 12 } }) -- which it has no engine for
  end)

  on_cuda("is asked for in words", "ours", function()
    local fine, message = pcall(both, "cuda", packed { 1, 8, 3, 1, 8 })
    assert.is_false(fine)
    assert.matches("PERIGEE_ATTENTION is 'ours'; expected own or cudnn", message)
  end)
end)

describe("the choice between cuDNN's attention and ours", function()
  on_cuda("is one of those that give the same bits every time, and stays", nil, function()
    local qkv = packed { 1, 24, 3, 2, 16 }
    both("cuda", qkv)
    for _, op in ipairs { "attention", "attention_backward" } do
      local key, value = chosen(op, "1x24x2x16+lse")
      assert.is_true(value == "own" or value == "cudnn/3:" or value == "cudnn/5:40=2", value)
      for _, wish in ipairs { "own", "cudnn/3:", "cudnn/5:40=2" } do
        choices.take { [key] = wish }
        both("cuda", qkv)
        assert.equal(wish, choices.all()[key])
      end
      choices.take { [key] = "cudnn/9:7=7" } -- no engine with such a knob: it is chosen again
      both("cuda", qkv)
      assert.is_true(choices.all()[key] ~= "cudnn/9:7=7")
    end
  end)

  on_cuda("decides which one runs", nil, function()
    local qkv = packed { 2, 48, 3, 2, 24 }
    both("cuda", qkv)
    local forward, backward = chosen("attention", "2x48x2x24+lse"), chosen("attention_backward", "2x48x2x24+lse")
    local function not_numbers(x) return x ~= x end -- what the stand-in's engine 9 writes
    local function run(how_forward, how_backward)
      choices.take { [forward] = how_forward, [backward] = how_backward }
      local out, gradient = both("cuda", qkv, 3)
      return not_numbers(ops.sum(out:to "float32"):item()), not_numbers(ops.sum(gradient:to "float32"):item())
    end
    assert.same({ false, false }, { run("own", "own") })
    assert.same({ false, true }, { run("cudnn/5:40=2", "cudnn/9:") })
    assert.same({ true, true }, { run("cudnn/9:", "own") })
    assert.same({ false, false }, { run("cudnn/3:", "cudnn/5:40=2") })
  end)

  on_cuda("is ours where cuDNN has no engine, and where its workspace would hold too large a map", nil, function()
    both("cuda", packed { 1, 16, 3, 1, 12 })
    local _, value = chosen("attention", "1x16x1x12")
    assert.equal("own", value)
    both("cuda", packed { 1, 200, 3, 1, 8 })
    _, value = chosen("attention_backward", "1x200x1x8")
    assert.equal("own", value)
  end)

  on_cuda("is by what is asked for, whatever was chosen", "own", function()
    local before = choices.all() or {}
    both("cuda", packed { 1, 20, 3, 1, 8 })
    assert.same(before, choices.all() or {})
  end)
end)

local function on_cuda_convolving(name, wish, body) on_cuda(name, wish, body, "PERIGEE_CONVOLUTION") end

--- A convolution of numbers of one size and gradients of sum(y²), by a program of a device that runs `runs` times.
local function convolved(device, dtype, runs)
  local p, bound, values = core.program.new "convolved", {}, {}
  for name, shape in pairs { x = { 2, 3, 6, 5 }, weight = { 4, 3, 3, 3 }, bias = { 4 } } do
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    local numbers = {}
    for k = 1, n do numbers[k] = math.sin(k * k % 10007) end
    bound[name] = ops.reshape(tensor.tensor(numbers), shape):to(dtype):to(device)
    values[name] = p:input(name, shape, dtype)
  end
  local y = ops.convolution(values.x, values.weight, values.bias, { stride = 2, padding = { 0, 1, 0, 1 } })
  local loss = ops.sum((y * y):to "float32")
  local gradients = core.gradient(p, { loss }, { ops.full_like(loss, 1) }, { values.x, values.weight, values.bias })
  local outputs = { { name = "y", value = y } }
  for k, gradient in ipairs(gradients) do outputs[k + 1] = { name = "gradient " .. k, value = gradient } end
  local executable = core.executable.compile(p, outputs, { device = device })
  local found
  for _ = 1, runs or 1 do found = executable:run(bound) end
  local here = {}
  for k, output in ipairs(outputs) do here[k] = found[output.name]:to "cpu":clone() end
  executable:free()
  return here
end

local CONVOLUTION = { "convolution", "convolution_backward_input", "convolution_backward_weight" }
local SIZES = "2x3x6x5/4x3x3/2+0+1+0+1"

describe("cuDNN's convolution", function()
  for _, case in ipairs(dofile(door.home .. "/tests/ops/convolution.lua")) do
    if case.reference then
      on_cuda_convolving(case.name .. ": as on the CPU", "cudnn", function()
        for _, dtype in ipairs { "float32", "bfloat16" } do
          harness.forward(case, dtype, "cuda")
          if case.gradients then harness.gradients(case, dtype, "cuda") end
        end
      end)
    end
  end

  on_cuda_convolving("multiplies float32 as it is, unless tf32 is allowed", "cudnn", function()
    local exact = convolved("cpu", "float32")
    local function farthest()
      local most = 0
      for k, t in ipairs(convolved("cuda", "float32", 3)) do most = math.max(most, most_apart(t, exact[k])) end
      return most
    end
    assert.is_true(farthest() < 1e-5)
    door.C.pg_tf32_set(1)
    local fine, apart = pcall(farthest)
    door.C.pg_tf32_set(0)
    assert.is_true(fine and apart > 1e-5 and apart < 1e-1, tostring(apart))
  end)
end)

describe("the choice between cuDNN's convolution and ours", function()
  on_cuda_convolving("is one of those that give the same bits every time, and stays", nil, function()
    for _, dtype in ipairs { "float32", "bfloat16" } do
      convolved("cuda", dtype)
      for _, op in ipairs(CONVOLUTION) do
        local key, value = chosen(op, dtype .. "/" .. SIZES)
        assert.is_true(value == "own" or value == "cudnn/3:" or value == "cudnn/5:40=2", value)
        for _, wish in ipairs { "own", "cudnn/3:", "cudnn/5:40=2" } do
          choices.take { [key] = wish }
          convolved("cuda", dtype)
          assert.equal(wish, choices.all()[key])
        end
      end
    end
  end)

  on_cuda_convolving("decides which one runs", nil, function()
    convolved("cuda", "bfloat16")
    local keys = {}
    for k, op in ipairs(CONVOLUTION) do keys[k] = chosen(op, "bfloat16/" .. SIZES) end
    --- Which of y, dx and dweight the stand-in's engine 9 wrote: no numbers.
    local function careless(...)
      local wishes, found = { ... }, {}
      for k, key in ipairs(keys) do choices.take { [key] = wishes[k] } end
      for k, t in ipairs(convolved("cuda", "bfloat16", 3)) do
        local sum = ops.sum(t:to "float32"):item()
        found[k] = sum ~= sum
      end
      return { found[1], found[2], found[3] }
    end
    assert.same({ false, false, false }, careless("own", "own", "own"))
    assert.same({ false, true, false }, careless("cudnn/3:", "cudnn/9:", "own"))
    assert.same({ false, false, true }, careless("own", "cudnn/5:40=2", "cudnn/9:"))
    assert.same({ false, false, false }, careless("cudnn/5:40=2", "cudnn/3:", "cudnn/3:"))
  end)
end)

describe("training by cuDNN's attention", function()
  local tiny = require "tests.lua.tiny"
  for _, wish in ipairs { "cudnn", "timed" } do
    on_cuda("continues from a checkpoint bit for bit, " .. wish, wish == "cudnn" and wish or nil, function()
      local folder = os.tmpname()
      os.remove(folder)
      ffi.C.setenv("PERIGEE_CACHE", folder .. "/cache", 1)
      local function train(name, steps, resume)
        local run = require("perigee.train").train(tiny.recipe { total = 6, align = 3, checkpoint = 3,
          precision = "bf16" },
          { folder = folder .. "/" .. name, device = "cuda", steps = steps, resume = resume, quiet = true })
        run:free()
      end
      train("a", 6)
      train("b", 3)
      train("b", 6, true)
      assert.equal(tiny.checkpoint(folder .. "/a", 6), tiny.checkpoint(folder .. "/b", 6))
      os.execute("rm -rf " .. tiny.quote(folder))
    end)
  end
end)
