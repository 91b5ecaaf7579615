--- Step time by how long threads spin while they wait for each other (GOMP_SPINCOUNT), on an idle machine, beside one
--- busy process, and under a quota of processor time, all in one run and in turn.
---
---   perigee run tests/bench/waiting.lua [--recipe FILE] [--rounds N] [--steps N] [COUNT...]     on random data
---
--- COUNT: turns of the waiting loop; `own` is what the program sets itself, 300000 libgomp's default. The machine
--- should have nothing else to do; the load is printed, and processor time besides the time of a clock. A quota needs a
--- group of its own below /sys/fs/cgroup, hence root.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local profile = require "perigee.bench.profile"
local whole_file = require "perigee.base.whole_file"

local SCRIPT = core.home .. "/tests/bench/waiting.lua"

-- ---- one measurement ---------------------------------------------------------------------------------------------

--- In a process of its own: median seconds of a step, and processor seconds a step.
local function child(path, steps)
  require("perigee.core.limits").apply()
  local recipe = require("perigee.recipe.load").load(path, { values = {} }).value
  local run = profile.open(recipe, { synthetic = true })
  profile.seconds(run, 3)
  local before = os.clock()
  local seconds = profile.seconds(run, steps)
  print(("measured %.9g %.9g %d"):format(profile.quantile(seconds, 0.5), (os.clock() - before) / steps,
    core.C.pg_threads()))
  run:free()
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- ---- conditions --------------------------------------------------------------------------------------------------

local function write(path, text)
  local file = io.open(path, "w")
  local fine = file and file:write(text) and file:close()
  return fine and true or false
end

--- Makes a group that may use so many processors. The file that takes its processes, and its folder; or nil.
local function group(processors)
  local version2 = files.exists "/sys/fs/cgroup/cgroup.controllers"
  local folder = version2 and "/sys/fs/cgroup/perigee-waiting" or "/sys/fs/cgroup/cpu/perigee-waiting"
  if not pcall(files.make_folder, folder) then return nil end
  local most = ("%d"):format(processors * 100000)
  local fine
  if version2 then fine = write(folder .. "/cpu.max", most .. " 100000")
  else fine = write(folder .. "/cpu.cfs_period_us", "100000") and write(folder .. "/cpu.cfs_quota_us", most) end
  if not fine then
    os.execute("rmdir " .. folder)
    return nil
  end
  return folder .. "/cgroup.procs", folder
end

--- Shell texts around a command, by condition.
local around = {
  idle = "%s",
  busy = "sh -c 'while :; do :; done' & other=$!; trap 'kill $other' EXIT; %s",
  quota = "sh -c 'echo $$ > '\"$GROUP\"' && exec \"$@\"' sh %s",
}

-- ---- all of them -------------------------------------------------------------------------------------------------

local function measure(condition, count, o, procs)
  local program = (os.getenv "PERIGEE_BUILD" or core.home .. "/build") .. "/runtime/perigee"
  local setting = count == "own" and "-u GOMP_SPINCOUNT" or "GOMP_SPINCOUNT=" .. count
  local command = ("env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY %s PERIGEE_HOME=%s %s run %s --child %s %d"):format(
    setting, quote(core.home), quote(program), quote(SCRIPT), quote(o.recipe), o.steps)
  local text = (around[condition]:gsub("%%s", function() return command end))
  local pipe = io.popen(("GROUP=%s; export GROUP; { %s; } 2>&1"):format(quote(procs or ""), text))
  local output = pipe:read "*a"
  pipe:close()
  local seconds, processor, threads = output:match "measured (%S+) (%S+) (%d+)"
  if not seconds then error("a measurement failed:\n" .. output, 0) end
  return tonumber(seconds), tonumber(processor), tonumber(threads)
end

local function load_text() return (whole_file.read "/proc/loadavg" or "?"):match "^%S+" end

local function options_of(arguments)
  local o = { recipe = core.home .. "/recipes/quickstart.lua", rounds = 5, steps = 40, counts = {} }
  local k = 1
  while arguments[k] do
    local name = arguments[k]:match "^%-%-(%a+)$"
    if name == "recipe" then o.recipe = arguments[k + 1]
    elseif name then o[name] = tonumber(arguments[k + 1]) or error("expected a number after --" .. name, 0)
    else o.counts[#o.counts + 1] = arguments[k] end
    k = k + (name and 2 or 1)
  end
  if #o.counts == 0 then o.counts = { "300000", "own" } end
  return o
end

local function main()
  local o = options_of(arg)
  local processors = core.C.pg_threads()
  local procs, folder = group(math.max(0.5, processors - 0.5))
  local conditions = procs and { "idle", "busy", "quota" } or { "idle", "busy" }
  if not procs then print "no quota: no group can be made below /sys/fs/cgroup" end
  print(("%s, %d rounds of %d steps, load %s before"):format(o.recipe, o.rounds, o.steps, load_text()))
  local walls, times, threads = {}, {}, nil
  for _ = 1, o.rounds do
    for _, condition in ipairs(conditions) do
      for _, count in ipairs(o.counts) do
        local key = condition .. count
        walls[key], times[key] = walls[key] or {}, times[key] or {}
        local wall, processor
        wall, processor, threads = measure(condition, count, o, procs)
        table.insert(walls[key], wall)
        table.insert(times[key], processor)
      end
    end
  end
  if folder then os.execute("rmdir " .. folder) end
  print(("load %s after; %d threads; medians and quartiles of %d rounds"):format(load_text(), threads, o.rounds))
  print(("%-10s %-8s %10s %19s %12s %10s"):format("condition", "spin", "ms a step", "quartiles", "of the first",
    "processor"))
  local first = profile.quantile(walls[conditions[1] .. o.counts[1]], 0.5)
  for _, condition in ipairs(conditions) do
    for _, count in ipairs(o.counts) do
      local list, time = walls[condition .. count], times[condition .. count]
      print(("%-10s %-8s %10.2f %9.2f %9.2f %12.3f %10.2f"):format(condition, count, profile.quantile(list, 0.5) * 1e3,
        profile.quantile(list, 0.25) * 1e3, profile.quantile(list, 0.75) * 1e3, profile.quantile(list, 0.5) / first,
        profile.quantile(time, 0.5) * 1e3))
    end
  end
end

if arg[1] == "--child" then child(arg[2], tonumber(arg[3])) else main() end
