--- perigee test: builds the tests and runs them all; ends with a line "N passed, N failed".
---
--- Lua tests are tests/**/*_spec.lua, each file in a stock luajit of its own under busted; a file whose first lines
--- have `-- alone: reason` (it measures time, or wants every core) runs by itself, the others side by side with one
--- OpenMP thread each. Tests tagged #slow and tests/launcher/*.sh only run with --slow.
local lfs = require "lfs"

local home, build -- folders
local total       -- { passed =, failed =, skipped =, failures = { "what", ... } }

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
local function succeeds(command) return os.execute(command) == 0 end

local function first_line(command)
  local pipe = io.popen(command .. " 2>/dev/null")
  local line = pipe:read "*l"
  pipe:close()
  return line ~= "" and line or nil
end

local function say(...)
  io.write(string.format(...), "\n")
  io.flush()
end

local function print_end(path, lines)
  io.flush()
  os.execute(("tail -n %d %s"):format(lines, quote(path)))
end

local function count(what, passed, failed, skipped)
  total.passed, total.failed = total.passed + passed, total.failed + failed
  total.skipped = total.skipped + (skipped or 0)
  if failed > 0 then table.insert(total.failures, what) end
end

-- builds --------------------------------------------------------------------------------------------------------

--- Configures and builds a folder, tests included; a failure counts as a failed test.
local function build_all(folder, flags, target)
  lfs.mkdir(folder)
  local log, jobs = folder .. "/tests.log", first_line "nproc" or "2"
  local generator = ""
  if not lfs.attributes(folder .. "/CMakeCache.txt") and first_line "command -v ninja" then generator = "-G Ninja" end
  local configure = ("cmake -S %s -B %s %s -DPERIGEE_TESTS=ON %s %s"):format(
    quote(home), quote(folder), generator, flags, os.getenv "PERIGEE_CMAKE_FLAGS" or "")
  local make = ("cmake --build %s -j %s%s"):format(quote(folder), jobs, target and " --target " .. target or "")
  if succeeds(("{ %s && %s; } >%s 2>&1"):format(configure, make, quote(log))) then return true end
  print_end(log, 40)
  say("the build of %s failed; the whole log: %s", folder, log)
  count("build of " .. folder, 0, 1)
  return false
end

-- C -------------------------------------------------------------------------------------------------------------

--- Runs the cmocka programs of a build folder.
local function c_tests(title, folder, pattern, environment)
  local log = folder .. "/ctest.log"
  local select = pattern and " -R " .. quote(pattern) or ""
  say("%s", title)
  local fine = succeeds(("cd %s && %s ctest --output-on-failure%s >%s 2>&1"):format(
    quote(folder), environment or "", select, quote(log)))
  local passed, failed = 0, 0
  for line in io.lines(log) do
    if line:match "^%s*%d+/%d+ Test" then say("  %s", (line:gsub("^%s+", ""))) end
    local bad, all = line:match "tests passed, (%d+) tests? failed out of (%d+)"
    if bad then passed, failed = all - bad, tonumber(bad) end
  end
  if not fine then
    print_end(log, 60)
    failed = math.max(failed, 1)
  end
  count(title, passed, failed)
end

-- Lua -----------------------------------------------------------------------------------------------------------

local function find_specs(folder, found)
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:sub(1, 1) ~= "." and lfs.attributes(path, "mode") == "directory" then
      find_specs(path, found)
    elseif name:match "_spec%.lua$" then
      found[#found + 1] = path
    end
  end
  table.sort(found)
  return found
end

local function runs_alone(path)
  local file = assert(io.open(path))
  local alone = false
  for _ = 1, 5 do alone = alone or (file:read "*l" or ""):match "^%-%- alone" ~= nil end
  file:close()
  return alone
end

--- Runs spec files, `jobs` at a time, and reports each as it ends.
local function run_specs(title, files, jobs, arguments, environment)
  if #files == 0 then return end
  local logs = os.tmpname()
  os.remove(logs)
  lfs.mkdir(logs)
  local list = assert(io.open(logs .. "/list", "w"))
  list:write(table.concat(files, "\n"), "\n")
  list:close()
  local one = ([[log=%s/$(echo "$1" | tr -c 'A-Za-z0-9.\n' _).log; start=$(date +%%s%%N); ]]
    .. [[%s luajit %s --output=plainTerminal %s "$1" >"$log" 2>&1; ]]
    .. [[echo "$? $(( ($(date +%%s%%N) - start) / 1000000 )) $log $1"]]):format(
    quote(logs), environment, quote(first_line "command -v busted" or "busted"), arguments)
  local path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;"):format(home, home, home)
  local pipe = io.popen(("cd %s && LUA_PATH=%s xargs -d '\\n' -n 1 -P %d sh -c %s sh <%s"):format(
    quote(home), quote(path), jobs, quote(one), quote(logs .. "/list")))
  say("%s", title)
  for line in pipe:lines() do
    local status, milliseconds, log, file = line:match "^(%d+) (%d+) (%S+) (.*)$"
    local text = ""
    for entry in io.lines(log) do text = text .. entry .. "\n" end
    local passed, failures, errors, pending =
      text:match "(%d+) success%a* / (%d+) failures? / (%d+) errors? / (%d+) pending"
    local failed = (failures or 0) + (errors or 0)
    if status ~= "0" and failed == 0 then failed = 1 end -- it crashed, or exited before the end
    local name = file:sub(#home + 2)
    say("  %-4s %-44s %4d passed%s %7.1f s", failed == 0 and "ok" or "FAIL", name, passed or 0,
        failed > 0 and (", %d failed"):format(failed) or "", milliseconds / 1000)
    if failed > 0 then
      if status ~= "1" then say("  it ended with status %s", status) end
      io.flush()
      os.execute(("sed 's/^[+-]\\{20,\\}//' %s | tail -n 300"):format(quote(log))) -- without busted's progress marks
    end
    count(name .. (title:match " under .*$" or ""), tonumber(passed or 0), failed, tonumber(pending or 0))
  end
  pipe:close()
  os.execute("rm -rf " .. quote(logs))
end

local function lua_tests(options)
  local arguments = options.slow and "" or "--exclude-tags=slow"
  local files = find_specs(home .. "/tests", {})
  if options.filter then
    local named = {}
    for _, path in ipairs(files) do
      if path:sub(#home + 2):find(options.filter) then named[#named + 1] = path end
    end
    if #named > 0 then files = named else arguments = arguments .. " --filter=" .. quote(options.filter) end
  end
  local jobs = options.jobs or math.min(tonumber(first_line "nproc") or 1, 4)
  local alone, together = {}, {}
  for _, path in ipairs(files) do table.insert(runs_alone(path) and alone or together, path) end
  run_specs("Lua tests", together, jobs, arguments, jobs > 1 and "OMP_NUM_THREADS=1" or "")
  run_specs("Lua tests that run alone", alone, 1, arguments, "")
end

local function lint()
  say("luacheck")
  local fine = succeeds(("cd %s && luacheck --quiet --no-color ."):format(quote(home)))
  count("luacheck", fine and 1 or 0, fine and 0 or 1)
end

local function launcher_tests()
  local folder = home .. "/tests/launcher"
  if lfs.attributes(folder, "mode") ~= "directory" then return end
  say("launcher")
  for name in lfs.dir(folder) do
    if name:match "%.sh$" then
      local fine = succeeds("sh " .. quote(folder .. "/" .. name))
      say("  %-4s %s", fine and "ok" or "FAIL", name)
      count(name, fine and 1 or 0, fine and 0 or 1)
    end
  end
end

-- sanitizers ----------------------------------------------------------------------------------------------------

--- C tests and the ops' Lua tests with AddressSanitizer and UndefinedBehaviorSanitizer; products of bfloat16 are made
--- in pairs there, on any processor (kernels/matmul/element.h). luajit itself isn't built with them: their runtime is
--- loaded before it, and leaks aren't looked for.
local function sanitize(options)
  local folder = build .. "-asan"
  say("building with AddressSanitizer and UndefinedBehaviorSanitizer")
  if not build_all(folder, "-DPERIGEE_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release") then return end
  local settings = "ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 "
  c_tests("C tests under the sanitizers", folder, options.filter, settings .. "OMP_NUM_THREADS=2")
  local library = quote(folder .. "/runtime/libperigee.so")
  local runtime = first_line(("ldd %s | grep -o '/[^ ]*libasan[^ ]*'"):format(library))
  local specs = home .. "/tests/lua/ops_spec.lua"
  if lfs.attributes(specs) and runtime then
    local arguments = "--exclude-tags=slow" .. (options.filter and " --filter=" .. quote(options.filter) or "")
    local on_cpu = ("%s OMP_NUM_THREADS=2 PERIGEE_BUILD=%s LD_PRELOAD=%s"):format(settings, quote(folder),
      quote(runtime))
    run_specs("Lua tests under the sanitizers", { specs }, 1, arguments, on_cpu)
    local on_shim = ("%s PERIGEE_CUDA_LIBRARY=%s"):format(on_cpu,
      quote(folder .. "/runtime/libperigee_cuda_on_cpu.so"))
    run_specs("Lua tests of CUDA's kernels on the CPU, under the sanitizers", { specs }, 1, arguments,
              on_shim .. " PERIGEE_TEST_DEVICES=cuda")
    local on_it = {}
    for k, name in ipairs { "cuda", "cudnn", "cuda_training", "cuda_commands" } do
      on_it[k] = ("%s/tests/lua/%s_spec.lua"):format(home, name)
    end
    run_specs("Lua tests of training and commands on that, under the sanitizers", on_it, 1, arguments, on_shim)
  end
end

--- The loader's tests with ThreadSanitizer. OpenMP's own synchronisation is invisible to it, so only they.
local function thread_sanitize()
  local folder = build .. "-tsan"
  if not lfs.attributes(home .. "/tests/runtime/loader_test.c") then return end
  say("building with ThreadSanitizer")
  if not build_all(folder, "-DPERIGEE_TSAN=ON -DCMAKE_BUILD_TYPE=Release", "loader_test") then return end
  c_tests("loader under ThreadSanitizer", folder, "^loader_test$", "OMP_NUM_THREADS=1")
end

-- CUDA ----------------------------------------------------------------------------------------------------------

--- Compiles the CUDA kernels for GPUs, warnings being errors, where there is a compiler for them.
local function compile_for_gpus()
  local found
  for line in io.lines(build .. "/CMakeCache.txt") do found = found or line:match "^PERIGEE_NVCC:[A-Z]+=(.*)$" end
  if not found or found:match "NOTFOUND$" then
    say("CUDA kernels: there is no nvcc here, so they are not compiled for GPUs")
    count("CUDA kernels for GPUs", 0, 0, 1)
  else
    say("compiling the CUDA kernels for GPUs by %s", found)
    if build_all(build, "", "cuda_kernels") then count("CUDA kernels for GPUs", 1, 0) end
  end
end

-- all -----------------------------------------------------------------------------------------------------------

local function missing_tools()
  local missing = {}
  for _, tool in ipairs { "cmake", "ctest", "luajit", "busted", "luacheck" } do
    if not first_line("command -v " .. tool) then missing[#missing + 1] = tool end
  end
  return missing
end

local function run(options)
  home = assert(os.getenv "PERIGEE_HOME" or require("perigee.core.ffi").home)
  build = os.getenv "PERIGEE_BUILD" or home .. "/build"
  total = { passed = 0, failed = 0, skipped = 0, failures = {} }
  local missing = missing_tools()
  if #missing > 0 then
    error("the tests need " .. table.concat(missing, ", ") .. ": start them as ./perigee test, which installs them", 0)
  end
  local all = not (options.c or options.lua or options.lint or options.sanitize or options.tsan or options.nvcc)
  local everything = all and not options.filter
  if (not (all or options.c or options.lua)) or build_all(build, "") then
    if everything or options.lint then lint() end
    if all or options.c then c_tests("C tests", build, options.filter) end
    if all or options.lua then lua_tests(options) end
  end
  if everything or options.nvcc then compile_for_gpus() end
  if everything or options.sanitize then sanitize(options) end
  if everything or options.tsan then thread_sanitize() end
  if everything and options.slow then launcher_tests() end

  if #total.failures > 0 then say("\nfailed:\n  %s", table.concat(total.failures, "\n  ")) end
  if total.skipped > 0 then say("\n%d skipped", total.skipped) end
  if total.passed + total.failed == 0 then
    error(options.filter and ("no test matches \"%s\""):format(options.filter) or "no test was found", 0)
  end
  say("\n%d passed, %d failed", total.passed, total.failed)
  return total.failed == 0 and 0 or 1
end

return {
  summary = "build and run the tests",
  usage = "[options]",
  description = "Builds the tests and runs them. Without a choice of parts: luacheck; C tests; Lua tests, the ops' on\n"
    .. "every instruction set of this machine; C and ops' tests under AddressSanitizer and\n"
    .. "UndefinedBehaviorSanitizer, the CUDA kernels' on the CPU among them; the loader's under ThreadSanitizer;\n"
    .. "the CUDA kernels' compile for GPUs, where there is nvcc.",
  options = {
    { name = "c", default = false, help = "only the C tests" },
    { name = "lua", default = false, help = "only the Lua tests" },
    { name = "lint", default = false, help = "only luacheck" },
    { name = "sanitize", default = false,
      help = "only the tests under AddressSanitizer and UndefinedBehaviorSanitizer" },
    { name = "tsan", default = false, help = "only the loader's tests under ThreadSanitizer" },
    { name = "nvcc", default = false, help = "only the CUDA kernels' compile for GPUs" },
    { name = "slow", default = false, help = "the slow tests too" },
    { name = "filter", type = "string", value = "PATTERN", help = "only files or tests whose name matches" },
    { name = "jobs", type = "integer", min = 1,
      help = "Lua test files at a time (default one a processor, at most 4)" },
  },
  run = run,
}
