-- Every command on the device "cuda", which tests/cuda_on_cpu stands for, beside the same on the CPU. Pending where
-- libperigee_cuda_on_cpu.so isn't built (cmake --build build --target perigee_cuda_on_cpu).
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local pg = require "perigee"
local tiny = require "tests.lua.tiny"

local library = (os.getenv "PERIGEE_BUILD" or door.home .. "/build") .. "/runtime/libperigee_cuda_on_cpu.so"

describe("on cuda, over tests/cuda_on_cpu,", function()
  if not files.exists(library) then
    pending "the plugin of tests/cuda_on_cpu is not built"
    return
  end
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)
  local weights = door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"
  local tiny_run, classifier, environment

  --- What a command prints; it must succeed.
  local function perigee(...)
    local status, output = tiny.perigee(table.concat({ ... }, " "), environment)
    assert.equal(0, status, output)
    return output
  end

  --- What a command says that fails.
  local function complaint(...)
    local status, output = tiny.perigee(table.concat({ ... }, " "), environment)
    assert.equal(1, status, output)
    return output
  end

  setup(function()
    environment = ("PERIGEE_CUDA_LIBRARY=%s PERIGEE_CACHE=%s"):format(tiny.quote(library),
      tiny.quote(in_folder "cache"))
    perigee("train", tiny.quote(tiny.path), "--runs", in_folder(),
      "--total 2 --align 1 --checkpoint 1 --quiet --no-console",
      "--set", tiny.quote("weights=" .. weights))
    perigee("train tests/lua/recipes/coloured.lua --runs", in_folder(), "--quiet --no-console")
    tiny_run, classifier = in_folder "tiny", in_folder "coloured"
  end)

  it("bench times a step's calls by the device's clock", function()
    local path = in_folder "bench.json"
    local text = perigee("bench", tiny.quote(tiny.path),
      "--device cuda --synthetic --steps 2 --warmup 2 --profiled 1 --json", path)
    assert.matches("this GPU: matmul %d+ GFLOP/s", text)
    local found = json.read(path)
    assert.equal("cuda", found.device)
    assert.matches("compute capability 9.0", found.machine)
    assert.same({ "align", "free" }, { found.stages[1].stage, found.stages[2].stage })
    for _, stage in ipairs(found.stages) do
      assert.is_true(stage.ms > 0 and stage.tensor_bytes > 0)
      assert.is_true(#stage.ops > 0)
      for _, group in ipairs(stage.ops) do assert.is_true(group.seconds >= 0 and group.calls > 0) end
    end
    assert.is_true(found.stages[2].tensor_bytes < found.stages[1].tensor_bytes)
  end)

  it("sample draws what the CPU draws", function()
    local pictures = {}
    for _, device in ipairs { "cpu", "cuda" } do
      local path = in_folder(device .. ".png")
      perigee("sample", tiny_run, "--count 3 --steps 3 --sampler heun --cfg 2 --device", device, "--out", path)
      pictures[device] = pg.load_png(path):to "float32"
    end
    assert.is_true((pictures.cpu - pictures.cuda):abs():max():item() <= 1) -- a last bit of rounding
  end)

  it("eval's distances and accuracies are the CPU's", function()
    local results = {}
    for _, device in ipairs { "cpu", "cuda" } do
      local text = perigee("eval", tiny_run, classifier,
        "--count 8 --steps 2 --against train --features teacher --features", classifier,
        "--json --device", device)
      results[device] = json.decode(text)
    end
    assert.equal(3, #results.cuda)
    for k, expected in ipairs(results.cpu) do
      local here, there = expected.result, results.cuda[k].result
      assert.equal(here.name, there.name)
      if here.distance then assert.is_near(here.distance, there.distance, 1e-3 * here.distance)
      else
        assert.equal(here.accuracy, there.accuracy)
        assert.is_near(here.cross_entropy, there.cross_entropy, 1e-4)
      end
    end
  end)

  it("eval judges by a classifier in bfloat16", function()
    local recipe = in_folder "low.lua"
    local text = files.read(door.home .. "/tests/lua/recipes/coloured.lua"):gsub('name    = "coloured",',
      'name = "low", precision = "bf16",')
    files.write(recipe, text)
    perigee("train", recipe, "--runs", in_folder(), "--quiet --no-console --device cuda")
    local results = json.decode(perigee("eval", in_folder "low", "--json --device cuda"))
    assert.is_true(results[1].result.accuracy > 0.9)
  end)

  it("repl's run lives there", function()
    local lines = {
      "run:train(2)", "=run:loss().denoise", "run:batch().images.device",
      "=run:gradient { loss = 'features', of = 'block 1' }:abs():sum():item() > 0",
      ("run:picture { path = %q }"):format(in_folder "batch.png"),
      ("run:attention { block = 2, path = %q }"):format(in_folder "map.png"),
    }
    files.write(in_folder "lines", table.concat(lines, "\n") .. "\n")
    local status, text = tiny.perigee(("repl %s --device cuda --set %s <%s"):format(tiny.quote(tiny.path),
      tiny.quote("weights=" .. weights), in_folder "lines"), environment)
    assert.equal(0, status, text)
    assert.matches('"?cuda"?', text)
    assert.is_nil(text:find("error", 1, true), text)
    assert.equal("file", files.kind(in_folder "batch.png"))
    assert.equal("file", files.kind(in_folder "map.png"))
  end)

  it("a script computes and differentiates there", function()
    local script = in_folder "script.lua"
    files.write(script, [[
      local x = pg.tensor({ 1, 2, 3 }):to "cuda"
      local gradients, value = pg.grad(function(v) return (v * v):sum() end, { x })
      print(gradients[1].device, table.concat(gradients[1]:totable(), " "), value:item())
    ]])
    assert.equal("cuda\t2 4 6\t14\n", perigee("run", script))
  end)

  it("plan measures the device at hand", function()
    local priced = json.decode(perigee("plan", tiny.quote(tiny.path), "--device cuda --json"))
    assert.matches("compute capability 9.0", priced.stages[1].device)
    assert.is_true(priced.stages[1].seconds > 0)
  end)

  it("a console reads and changes what is there", function()
    local runs, log = in_folder "attached", in_folder "log"
    files.make_folder(runs)
    local command = ("train %s --runs %s --device cuda --total 1000000 --align 2 --checkpoint 0 --set %s"):format(
      tiny.quote(tiny.path), runs, tiny.quote("weights=" .. weights))
    local script = ("%s >%s 2>&1 & echo $!"):format(tiny.command(command, environment), log)
    local pipe = io.popen("( " .. script .. " )")
    local process = pipe:read "*l"
    pipe:close()
    finally(function()
      os.execute("kill " .. process .. "; while kill -0 " .. process .. " 2>/dev/null; do sleep 0.1; done")
    end)
    for _ = 1, 600 do
      if files.kind(runs .. "/tiny/console.sock") then break end
      os.execute "sleep 0.1"
    end
    local function tell(text) return perigee("tell", runs .. "/tiny", tiny.quote(text), "--limit 30") end
    assert.equal("cuda\n", tell "run:parameter('student.blocks.1.mlp.hidden.bias').device")
    tell "name = 'student.blocks.1.mlp.hidden.bias'; run:set(name, run:parameter(name) * 0 + 3)"
    tell "run:pause()"
    assert.is_near(3, tonumber(tell "run:parameter('student.blocks.1.mlp.hidden.bias'):mean():item()"), 0.5)
    assert.matches("samples/step%-%d+%.png", tell "run:sample { count = 2, steps = 2 }")
    tell "run:resume()"
  end)

  it("every command says in one line what it does not know, or has not", function()
    local gone = "CUDA_ON_CPU_DEVICES=0 " .. environment
    for command, where in pairs {
      train = tiny.quote(tiny.path), bench = tiny.quote(tiny.path), repl = tiny.quote(tiny.path),
      plan = tiny.quote(tiny.path), sample = tiny_run, eval = tiny_run,
    } do
      assert.matches("^perigee: %-%-device tpu: [^\n]*expected cpu[^\n]* cuda[^\n]*\n$",
        complaint(command, where, "--device tpu </dev/null"))
      local status, text = tiny.perigee(("%s %s --device cuda </dev/null"):format(command, where), gone)
      assert.equal(1, status, text)
      assert.matches("^perigee: %-%-device cuda: cuda: no usable GPU and driver[^\n]*\n$", text)
    end
  end)
end)
