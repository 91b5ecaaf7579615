--- perigee test: builds the tests, has CTest run them (tests/CMakeLists.txt), and adds up what they report; ends with a
--- line "N passed, N failed". A program of cmocka tests and a file of busted tests count each of their tests; what
--- reports no number counts as one.
local lfs = require "lfs"
local read = require("perigee.base.whole_file").read

-- Build folders by their presets (CMakePresets.json), the first being the product's own.
local FOLDERS = {
  { preset = "release", suffix = "", title = "tests" },
  { preset = "asan", suffix = "-asan", title = "under AddressSanitizer and UndefinedBehaviorSanitizer",
    option = "sanitize" },
  { preset = "tsan", suffix = "-tsan", title = "under ThreadSanitizer", option = "tsan" },
}
local LABELS = { "c", "lua", "lint", "nvcc" } -- parts of the first folder, also options
local MOST_LINES = 300 -- of a failed test's output
local TOOLS = { "cmake", "ctest", "luajit", "busted", "luacheck" }

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function say(...)
  io.write(string.format(...), "\n")
  io.flush()
end

local function output_of(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function is_installed(tool) return output_of("command -v " .. tool) ~= "" end

local function check_tools()
  local missing = {}
  for _, tool in ipairs(TOOLS) do
    if not is_installed(tool) then missing[#missing + 1] = tool end
  end
  if #missing > 0 then
    error(("missing: %s; ./perigee test installs them on Debian and Ubuntu, unless PERIGEE_PACKAGES=no"):format(
      table.concat(missing, ", ")), 0)
  end
end

local function count(total, name, passed, failed, skipped)
  total.passed, total.failed, total.skipped = total.passed + passed, total.failed + failed, total.skipped + skipped
  if failed > 0 then table.insert(total.failures, name) end
end

-- ---- building ---------------------------------------------------------------------------------------------------

--- Configures a job's folder, and builds it unless its tests need nothing built; a failure counts as a failed test.
local function build(job, total)
  local folder, log = quote(job.folder), job.folder .. "/tests.log"
  lfs.mkdir(job.folder)
  local generator = ""
  if not lfs.attributes(job.folder .. "/CMakeCache.txt") and is_installed "ninja" then generator = "-G Ninja" end
  local steps = { ("cmake --preset %s -S %s -B %s %s %s"):format(job.preset, quote(job.home), folder, generator,
    os.getenv "PERIGEE_CMAKE_FLAGS" or "") }
  if job.builds then steps[2] = ('cmake --build %s -j "$(nproc)"'):format(folder) end
  local command = ("cd %s && { %s; } >%s 2>&1"):format(quote(job.home), table.concat(steps, " && "), quote(log))
  if os.execute(command) == 0 then return true end
  os.execute("tail -n 40 " .. quote(log))
  say("the build of %s failed; the whole log: %s", job.folder, log)
  count(total, "the build of " .. job.folder, 0, 1, 0)
end

-- ---- running ----------------------------------------------------------------------------------------------------

--- The numbers of passed, failed and skipped tests in what a test program printed; nil where it printed none.
local function reported(text)
  local passed, failures, errors, pending =
    text:match "(%d+) success%a* / (%d+) failures? / (%d+) errors? / (%d+) pending" -- busted
  if passed then return tonumber(passed), failures + errors, tonumber(pending) end
  local sum = { PASSED = 0, FAILED = 0, SKIPPED = 0 } -- cmocka, a line a group of tests
  for kind, number in text:gmatch "%[  (%u+) +%] (%d+) test%(s%)" do
    passed, sum[kind] = true, (sum[kind] or 0) + number
  end
  if passed then return sum.PASSED, sum.FAILED, sum.SKIPPED end
end

--- Adds up the cases of a JUnit file that ctest wrote; names those with tests that a pattern picked.
local function add_up(total, report, job)
  local title = job.option and " " .. job.title or ""
  for attributes, body in report:gmatch "<testcase(.-)>(.-)</testcase>" do
    local name, status = attributes:match ' name="([^"]*)"', attributes:match ' status="([^"]*)"'
    local passed, failed, skipped = reported(body)
    if job.pattern and (passed or 0) > 0 then say("%s: %d passed", name, passed) end
    if status == "run" then
      if not passed and name:match "_spec" then
        say("%s ended before its last test", name)
        passed, failed = 0, 1
      end
      count(total, name .. title, passed or 1, failed or 0, skipped or 0)
    elseif status == "notrun" and body:find('message="SKIP_', 1, true) then
      count(total, name .. title, 0, 0, 1)
    else -- it failed, crashed, took too long or could not be started
      count(total, name .. title, passed or 0, math.max(failed or 0, 1), skipped or 0)
    end
  end
end

--- Prints ctest's lines about tests that have ended, and the output of those that failed, or its beginning.
local function show_progress(pipe, job)
  local hidden = { "^%s*Start%s+%d+: ", "^Test project ", "^Internal ctest ", "^[-+*.]+$" } -- the last: busted's marks
  if job.pattern then table.insert(hidden, "^%s*%d+/%d+ Test .* Passed ") end -- a file in which nothing may match
  local shown = 0 -- lines of the last test
  for line in pipe:lines() do
    if line:match "^%d+%% tests passed" then break end
    if line:match "^%s*%d+/%d+ Test " then shown = 0 end
    local is_hidden = shown > MOST_LINES
    for _, pattern in ipairs(hidden) do is_hidden = is_hidden or line:match(pattern) ~= nil end
    if not is_hidden then
      shown = shown + 1
      say("%s", shown <= MOST_LINES and line or ("... (all of it: %s/tests.xml)"):format(job.folder))
    end
  end
  pipe:read "*a"
end

--- Runs the tests of a folder.
local function run_tests(job, total)
  local report = job.folder .. "/tests.xml"
  os.remove(report)
  say("\n%s (%s)", job.title, job.folder)
  local environment = job.pattern and "PERIGEE_TEST_FILTER=" .. quote(job.pattern) or ""
  local command = ("%s ctest --test-dir %s %s -j %d --output-on-failure --test-output-size-passed 10000000 "
    .. "--test-output-size-failed 10000000 --output-junit %s 2>&1"):format(environment, quote(job.folder),
    job.selection, job.jobs, quote(report))
  local pipe = io.popen(command)
  show_progress(pipe, job)
  pipe:close()
  local text = read(report)
  if text then add_up(total, text, job)
  else count(total, "ctest in " .. job.folder, 0, 1, 0) end
end

--- Sets ctest's options that choose a job's tests: by label, and by name where one matches; else the Lua tests, which
--- look for the pattern in the names of their tests. False where there is none to run.
local function choose(job, options)
  local function are_there(selection)
    local listed = output_of(("ctest --test-dir %s -N %s"):format(quote(job.folder), selection))
    job.selection = selection
    return not listed:match "Total Tests: 0"
  end
  local labels = job.labels and (" -L '^(%s)$'"):format(table.concat(job.labels, "|")) or ""
  if not options.slow then labels = labels .. " -LE '^slow$'" end
  if not options.filter then return are_there(labels) end
  if are_there(labels .. " -R " .. quote(options.filter)) then return true end
  job.pattern = options.filter
  return are_there(labels .. " -L '^lua$'")
end

-- ---- the whole --------------------------------------------------------------------------------------------------

--- What to do in which folder: with no part chosen, everything; or, with a filter, what it finds in the first folder.
local function jobs_of(options)
  local home = assert(os.getenv "PERIGEE_HOME" or require("perigee.core.ffi").home)
  local base = os.getenv "PERIGEE_BUILD" or home .. "/build"
  local jobs = options.jobs or math.min(tonumber(output_of "nproc") or 1, 4)
  local labels = {}
  for _, label in ipairs(LABELS) do
    if options[label] then labels[#labels + 1] = label end
  end
  local all = #labels == 0 and not options.sanitize and not options.tsan
  local list = {}
  for _, folder in ipairs(FOLDERS) do
    local wanted
    if all then wanted = not (options.filter and folder.option)
    elseif folder.option then wanted = options[folder.option]
    else wanted = #labels > 0 end
    if wanted then
      local is_part = not all and not folder.option
      list[#list + 1] = {
        preset = folder.preset, title = folder.title, option = folder.option, home = home,
        folder = base .. folder.suffix, jobs = jobs, labels = is_part and labels or nil,
        builds = not is_part or options.c or options.lua,
      }
    end
  end
  return list
end

--- Fuzzes the readers, or the one of that name.
local function fuzz(options)
  local home = assert(os.getenv "PERIGEE_HOME" or require("perigee.core.ffi").home)
  local status = os.execute(("%s/tests/fuzz/run %g %s"):format(quote(home), options.fuzz,
    options.filter and quote(options.filter) or ""))
  return status == 0 and 0 or 1
end

local function run(options)
  if options.fuzz then return fuzz(options) end
  check_tools()
  local total = { passed = 0, failed = 0, skipped = 0, failures = {} }
  for _, job in ipairs(jobs_of(options)) do
    if build(job, total) and choose(job, options) then run_tests(job, total) end
  end
  if total.passed + total.failed + total.skipped == 0 then
    error(options.filter and ("no test matches \"%s\""):format(options.filter) or "no tests were found", 0)
  end
  if #total.failures > 0 then say("failed:\n  %s\n", table.concat(total.failures, "\n  ")) end
  say("%d passed, %d failed%s", total.passed, total.failed,
    total.skipped > 0 and (", %d skipped"):format(total.skipped) or "")
  return total.failed == 0 and 0 or 1
end

return {
  summary = "build and run the tests",
  usage = "[options]",
  description = "Builds the tests and has CTest run them (docs/testing.md). Without a choice of parts: luacheck;\n"
    .. "C tests; Lua tests, the ops' on every instruction set of this machine; the CUDA kernels' compile for GPUs,\n"
    .. "where there is nvcc; C tests and the ops' Lua tests under AddressSanitizer and UndefinedBehaviorSanitizer,\n"
    .. "the CUDA kernels' on the CPU among them; the loader's tests under ThreadSanitizer; and, where clang has\n"
    .. "libFuzzer, each fuzzed reader for a second.",
  options = {
    { name = "c", default = false, help = "only the C tests" },
    { name = "lua", default = false, help = "only the Lua tests" },
    { name = "lint", default = false, help = "only luacheck" },
    { name = "sanitize", default = false,
      help = "only the tests under AddressSanitizer and UndefinedBehaviorSanitizer" },
    { name = "tsan", default = false, help = "only the loader's tests under ThreadSanitizer" },
    { name = "nvcc", default = false, help = "only the CUDA kernels' compile for GPUs" },
    { name = "fuzz", type = "integer", min = 1, value = "SECONDS",
      help = "fuzz each reader for so long instead (clang with libFuzzer), or the one that --filter names" },
    { name = "slow", default = false, help = "the launcher's tests too, which take minutes" },
    { name = "filter", type = "string", value = "PATTERN",
      help = "only files whose name matches; where none does, Lua tests whose name matches" },
    { name = "jobs", type = "integer", min = 1, help = "tests at a time (default one a processor, at most 4)" },
  },
  run = run,
}
