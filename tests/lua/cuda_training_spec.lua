-- tests/gpu/cifar10.lua trained by the program on the device "cuda", which tests/cuda_on_cpu stands for, and on the
-- CPU. Pending where libperigee_cuda_on_cpu.so isn't built (cmake --build build --target perigee_cuda_on_cpu).
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local library = (os.getenv "PERIGEE_BUILD" or door.home .. "/build") .. "/runtime/libperigee_cuda_on_cpu.so"
local RECIPE = "tests/gpu/cifar10.lua"
local LAST = 6 -- aligned to step 4, free to the end
local OPTIONS = { size = "tiny", batch = 4, micro = 4, align = 4, total = LAST, angle = 2, checkpoint = 2 }

describe("training on cuda, over tests/cuda_on_cpu,", function()
  if not files.exists(library) then
    pending "the plugin of tests/cuda_on_cpu is not built"
    return
  end
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)
  local environment, teacher

  local function perigee(...)
    local words = { ... }
    local status, output = tiny.perigee(table.concat(words, " "), environment)
    assert.equal(0, status, output)
    return output
  end

  --- Trains, and returns the run's folder.
  local function train(name, device, precision, flags)
    local words = {
      "train", RECIPE, "--runs", tiny.quote(in_folder()), "--name", name, "--device", device, "--no-console --quiet",
      "--set teacher=" .. tiny.quote(teacher), "--set precision=" .. precision,
    }
    for key, value in pairs(OPTIONS) do words[#words + 1] = ("--set %s=%s"):format(key, tostring(value)) end
    perigee(table.concat(words, " "), flags or "")
    return in_folder(name)
  end

  --- Events of one kind.
  local function events(folder, kind)
    local list = {}
    for line in io.lines(folder .. "/events.jsonl") do
      local event = json.decode(line)
      if event.event == kind then list[#list + 1] = event end
    end
    return list
  end

  local function near(expected, got, tolerance, what)
    assert.is_true(math.abs(got - expected) <= tolerance * math.max(math.abs(expected), 0.1),
      ("%s: %.9g, on the CPU %.9g"):format(what, got, expected))
  end

  --- The same numbers in two values, which may be tables.
  local function near_values(expected, got, tolerance, what)
    if type(expected) == "number" then return near(expected, got, tolerance, what) end
    for key, value in pairs(type(expected) == "table" and expected or {}) do
      near_values(value, got[key], tolerance, what .. "." .. key)
    end
  end

  --- The same steps, stages and signals, losses and norms within a relative tolerance.
  local function expect_alike(expected_folder, folder, tolerance)
    local expected, got = events(expected_folder, "step"), events(folder, "step")
    assert.equal(LAST, #expected)
    assert.equal(LAST, #got)
    for k, step in ipairs(expected) do
      assert.equal(step.stage, got[k].stage)
      for name, value in pairs(step.losses) do
        near(value, got[k].losses[name], tolerance, ("step %d, %s"):format(k, name))
      end
      near(step.gradient_norm, got[k].gradient_norm, tolerance, ("step %d, the gradient's norm"):format(k))
    end
    local signals, measured = events(expected_folder, "signal"), events(folder, "signal")
    assert.is_true(#signals > 0)
    assert.equal(#signals, #measured)
    for k, signal in ipairs(signals) do
      assert.equal(signal.name, measured[k].name)
      near_values(signal.value, measured[k].value, 10 * tolerance, signal.name)
    end
  end

  setup(function()
    environment = ("PERIGEE_CUDA_LIBRARY=%s PERIGEE_CACHE=%s"):format(tiny.quote(library),
      tiny.quote(in_folder "cache"))
    teacher = in_folder "teacher.safetensors"
    perigee("run tests/gpu/teacher.lua", RECIPE, tiny.quote(teacher), "--size tiny")
  end)

  it("the CPU's losses, norms and gradient angles in float32, through both stages", function()
    expect_alike(train("cpu", "cpu", "float32"), train("cuda", "cuda", "float32"), 2e-5)
  end)

  it("the same in pieces", function()
    expect_alike(train("cpu-pieces", "cpu", "float32", "--set micro=2"),
      train("cuda-pieces", "cuda", "float32", "--set micro=2"), 2e-5)
  end)

  it("the same in bfloat16, as near as bfloat16 is", function()
    expect_alike(train("cpu-bf16", "cpu", "bf16"), train("cuda-bf16", "cuda", "bf16"), 2e-2)
  end)

  it("a run stopped in either stage continues bit for bit", function()
    train("whole", "cuda", "float32")
    train("parts", "cuda", "float32", "--steps 3")
    train("parts", "cuda", "float32", "--steps 5 --resume")
    train("parts", "cuda", "float32", "--resume")
    assert.is_true(tiny.checkpoint(in_folder "whole", LAST) == tiny.checkpoint(in_folder "parts", LAST))
  end)

  it("a run begun on cuda continues on the CPU", function()
    local whole = train("on-cpu", "cpu", "float32")
    train("moved", "cuda", "float32", "--steps 3")
    expect_alike(whole, train("moved", "cpu", "float32", "--resume"), 2e-5)
  end)

  for _, micro in ipairs { 4, 2, 1 } do
    it(("a step in pieces of %d of 4 is one graph, and no call beside it"):format(micro), function()
      local words = { "run tests/gpu/graph.lua cuda 2", RECIPE, "--teacher", tiny.quote(teacher) }
      for key, value in pairs(OPTIONS) do
        words[#words + 1] = ("--%s %s"):format(key, tostring(key == "micro" and micro or value))
      end
      for _, stage in ipairs(json.decode(perigee(unpack(words)):match "[^\n]+")) do
        assert.equal(1, stage.first.captures)
        assert.same({ calls = 0, captures = 0, launches = stage.steps }, stage.rest)
      end
    end)
  end
end)
