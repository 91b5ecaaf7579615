-- Memory and processors are those that this process may use: control groups of both versions, from a tree of files.
local core = require "perigee.core.ffi"
local fails = require("tests.lua.expect").fails
local files = require "perigee.io.files"
local fits = require "perigee.cost.fits"
local limits = require "perigee.core.limits"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)
local MIB = 2 ^ 20

--- Puts files under a folder; numbers become texts.
local function tree(list)
  for path, text in pairs(list) do
    files.make_folder((files.split(in_folder(path))))
    files.write(in_folder(path), tostring(text) .. "\n")
  end
end

--- Two processors whatever OMP_NUM_THREADS says.
local function threads()
  local getenv, asked, before = os.getenv, nil, core.C.pg_threads()
  os.getenv = function(name) -- luacheck: ignore 122
    if name ~= "OMP_NUM_THREADS" then return getenv(name) end
    return asked
  end
  core.C.pg_threads_set(6)
  local found = limits.threads()
  asked = "6"
  assert.equal(6, limits.threads()) -- the user's word holds
  core.C.pg_threads_set(before)
  os.getenv = getenv -- luacheck: ignore 122
  return found
end

describe("limits", function()
  local groups, proc = limits.groups, limits.proc
  before_each(function()
    limits.groups, limits.proc = in_folder "groups", in_folder "proc"
    tree { ["proc/meminfo"] = "MemTotal:  25000000 kB\nMemFree: 1 kB\nMemAvailable:  20000000 kB",
      ["proc/self/status"] = "VmSize:  1000 kB\nVmData:  500 kB" }
  end)
  after_each(function() limits.groups, limits.proc = groups, proc end)

  it("are the machine's where there are no others", function()
    local m = limits.memory()
    assert.same({ 25e6 * 1024, 20e6 * 1024, "this machine" }, { m.total, m.free, m.whose })
    assert.is_nil(limits.quota())
    assert.equal(6, threads())
    tree { ["proc/self/cgroup"] = "0::/a", ["groups/a/memory.max"] = "max", ["groups/a/cpu.max"] = "max 100000" }
    assert.equal("this machine", limits.memory().whose)
    assert.is_nil(limits.quota())
  end)

  it("are the tightest group's of version 2, without what the kernel keeps of files", function()
    tree { ["proc/self/cgroup"] = "0::/slice/job/step",
      ["groups/slice/memory.max"] = 300 * MIB, ["groups/slice/memory.current"] = 250 * MIB,
      ["groups/slice/memory.stat"] = ("anon 1\ninactive_file %d"):format(100 * MIB),
      ["groups/slice/job/memory.max"] = "max", ["groups/slice/job/memory.current"] = 5,
      ["groups/slice/job/step/memory.max"] = 900 * MIB, ["groups/slice/job/step/memory.current"] = 800 * MIB,
      ["groups/slice/cpu.max"] = "400000 100000", ["groups/slice/job/cpu.max"] = "150000 100000" }
    local m = limits.memory()
    assert.same({ 300 * MIB, 100 * MIB, "this container", 25e6 * 1024 }, { m.total, m.free, m.whose, m.machine })
    assert.equal(1.5, limits.quota())
    assert.equal(2, threads())
  end)

  it("are those of version 1, in a container that sees its group as the root too", function()
    tree { ["proc/self/cgroup"] = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x",
      ["groups/memory/memory.limit_in_bytes"] = 300 * MIB, ["groups/memory/memory.usage_in_bytes"] = 30 * MIB,
      ["groups/memory/memory.stat"] = ("inactive_file 7\ntotal_inactive_file %d"):format(10 * MIB),
      ["groups/cpu/cpu.cfs_quota_us"] = 50000, ["groups/cpu/cpu.cfs_period_us"] = 100000 }
    local m = limits.memory()
    assert.same({ 300 * MIB, 280 * MIB, "this container" }, { m.total, m.free, m.whose })
    assert.same({ 0.5, 1 }, { limits.quota(), threads() })
    tree { ["groups/memory/docker/abc/memory.limit_in_bytes"] = "9223372036854771712",
      ["groups/cpu/cpu.cfs_quota_us"] = -1 }
    assert.equal(300 * MIB, limits.memory().total)
    assert.is_nil(limits.quota())
  end)

  it("refuse a recipe that can't fit before anything is allocated, and warn of one that is too large now", function()
    local recipe = tiny.recipe {}
    assert.is_nil(fits.check_host(recipe)) -- plenty
    tree { ["proc/self/cgroup"] = "0::/", ["groups/memory.max"] = 2 * MIB, ["groups/memory.current"] = 1 * MIB }
    fails(function() fits.check_host(recipe) end, "recipe tiny: stage align needs ",
      "this container has 2.0 MiB, 1.0 MiB")
    fails(function() tiny.train({}, { folder = in_folder "run" }) end, "this container has 2.0 MiB")
    assert.is_false(files.exists(in_folder "run"))
    tree { ["groups/memory.max"] = 4 * MIB, ["groups/memory.current"] = 3 * MIB }
    assert.matches("^stage align needs 2.6 MiB; this container has 4.0 MiB, 1.0 MiB free$", fits.check_host(recipe))
  end)
end)

describe("ulimit -v", function()
  it("bounds the memory that doctor and plan know", function()
    local program = tiny.command "doctor"
    local pipe = io.popen("bash -c " .. tiny.quote("ulimit -v 3000000; " .. program) .. " 2>&1")
    local text = pipe:read "*a"
    pipe:close()
    assert.matches("limit +3.1 GB  %-%- ulimit's; the machine has", text)
    pipe = io.popen("bash -c " .. tiny.quote("ulimit -v 3000000; "
      .. tiny.command("plan tests/lua/recipes/tiny.lua --weights " .. core.home
        .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors")) .. " 2>&1")
    text = pipe:read "*a"
    pipe:close()
    assert.matches("memory here +2.86 GiB %(ulimit%), [%d.]+ GiB free\n", text)
  end)
end)

describe("the processors that a process may run on", function()
  it("are its threads, unless the user says another number", function()
    local script = in_folder "threads.lua"
    files.make_folder(in_folder())
    files.write(script, 'print("threads " .. require("perigee.core.limits").threads())')
    local status = require("perigee.base.whole_file").read "/proc/self/status"
    local first = status:match "Cpus_allowed_list:%s*(%d+)"
    local function found(before)
      local command = tiny.command("run " .. tiny.quote(script)):gsub("OMP_NUM_THREADS=1 ", "")
      local pipe = io.popen(("unset OMP_NUM_THREADS; %s sh -c %s 2>&1"):format(before, tiny.quote(command)))
      local text = pipe:read "*a"
      pipe:close()
      return tonumber(text:match "threads (%d+)\n") or text
    end
    assert.equal(1, found("taskset -c " .. first))
    assert.equal(3, found("OMP_NUM_THREADS=3 taskset -c " .. first))
    local pipe = io.popen "unset OMP_NUM_THREADS; nproc"
    local processors = pipe:read "*n"
    pipe:close()
    assert.is_true(found "" <= processors) -- a quota may allow fewer
  end)
end)

describe("threads that wait", function()
  local waiting = require "perigee.core.waiting"
  local stat = waiting.stat
  after_each(function() waiting.stat = stat end)

  it("know whether others leave them a processor each", function()
    waiting.stat = in_folder "proc/stat"
    local function crowded(wanted, running)
      tree { ["proc/stat"] = "cpu  1 2\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 5\nprocs_running " .. running }
      return waiting.is_crowded(wanted)
    end
    assert.same({ false, false, true, false, true }, { crowded(4, 1), crowded(3, 2), crowded(4, 2), crowded(2, 3),
      crowded(2, 4) })
    waiting.stat = in_folder "none"
    assert.is_false(waiting.is_crowded(2))
  end)

  it("sleep soon in a quota that is smaller, unless the user says how long they spin", function()
    tree { ["proc/self/cgroup"] = "0::/", ["groups/cpu.max"] = "150000 100000", ["proc/stat"] = "cpu0 1" }
    files.write(in_folder "spin.lua", ([[
      local limits, waiting = require "perigee.core.limits", require "perigee.core.waiting"
      local ffi = require "ffi"
      ffi.cdef "int unsetenv(const char *name);"
      if %s then ffi.C.unsetenv "GOMP_SPINCOUNT" end -- what the program decided at its start
      limits.groups, limits.proc, waiting.stat = %q, %q, %q
      waiting.prepare()
      os.execute "echo spin $GOMP_SPINCOUNT."]]):format('not os.getenv "KEPT"', in_folder "groups", in_folder "proc",
      in_folder "proc/stat"))
    local function spin(environment)
      local command = tiny.command("run " .. tiny.quote(in_folder "spin.lua"))
      local pipe = io.popen((command:gsub("OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive", environment)))
      local text = pipe:read "*a"
      pipe:close()
      return text:match "spin (%d*)%."
    end
    assert.equal("300", spin "OMP_NUM_THREADS=2")
    assert.equal("", spin "OMP_NUM_THREADS=1")
    assert.equal("77", spin "OMP_NUM_THREADS=2 KEPT=1 GOMP_SPINCOUNT=77")
    tree { ["groups/cpu.max"] = "200000 100000" }
    assert.equal("", spin "OMP_NUM_THREADS=2")
  end)
end)

describe("threads beside others", function()
  --- Runs a script with two threads; what it prints.
  local function said(body, environment)
    files.write(in_folder "shared.lua", [[
      local C, ops = require("perigee.core.ffi").C, require "perigee.core.ops"
      local function threads()
        local count = 0
        for name in require("lfs").dir "/proc/self/task" do count = count + (name:match "^%d" and 1 or 0) end
        return count
      end
      local function result()
        local state = require("perigee").tensor({ 1, 2, 3 }, "int64")
        local a = ops.random_normal({ 300, 300 }, { state = state, purpose = "x" })
        return table.concat(ops.matmul(a, a):sum(1):totable(), " ")
      end
      ]] .. body)
    local command = tiny.command("run " .. tiny.quote(in_folder "shared.lua"))
    environment = environment or "OMP_NUM_THREADS=2"
    local pipe = io.popen((command:gsub("OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive", environment)))
    local text = pipe:read "*a"
    pipe:close()
    return text
  end

  it("sleep soon while a team stands by, compute the same, and spin long again without it", function()
    assert.equal("true\t0\ttrue\n", said [[
      C.pg_waiting_share(0)
      local first, before = result(), threads()
      C.pg_waiting_share(1)
      C.pg_waiting_share(1)
      require("ffi").C.usleep(100000)
      local more = C.pg_waiting_is_shared() == 1 and threads() > before
      local same = result() == first
      C.pg_waiting_share(0)
      require("ffi").C.usleep(100000)
      print(more and same, C.pg_waiting_is_shared(), threads() == before)
    ]])
  end)

  it("are the user's where the user says how they wait", function()
    for _, environment in ipairs { "OMP_NUM_THREADS=2 OMP_WAIT_POLICY=active", "OMP_NUM_THREADS=2 GOMP_SPINCOUNT=5" } do
      assert.equal("0\n", said("C.pg_waiting_share(1) print(C.pg_waiting_is_shared())", environment))
    end
  end)
end)
