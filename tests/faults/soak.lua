--- A long training in which everything happens at once: consoles attach, ask and leave, policies and settings are
--- swapped, previews are drawn, checkpoints are written every few hundred milliseconds. Resident memory, open files,
--- threads and the processor time of a step must stay what they were. From the project's folder:
---
---   ./perigee run tests/faults/soak.lua [MINUTES] [FOLDER]
---
--- prints a line a minute, or ten in all where that is shorter, and ends with status 1 where something grew.
local client = require "perigee.console.client"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
package.path = package.path .. ";" .. door.home .. "/?.lua"
local tiny = require "tests.lua.tiny"

local C = door.C
local minutes, folder = tonumber((...) or 60), select(2, ...) or os.tmpname() .. "-soak"
local runs = folder .. "/runs"
local HANGS, TICKS = 60, 100 -- seconds without an answer; the system's ticks a second

-- ---- the trainer ------------------------------------------------------------------------------------------------

local function shell(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function start()
  require "tests.faults.place"(folder, 64)
  local train = ("train tests/faults/recipe.lua --folder %s --runs %s --align 100000000 --total 200000000 --logs 50 "
    .. "--previews 300 --checkpoints 100"):format(folder, runs)
  local environment = ("PERIGEE_CACHE=%s/cache HOME=%s"):format(folder, folder)
  return tonumber(shell(("( %s ) >%s/output 2>&1 & echo $!"):format(tiny.command(train, environment), folder)))
end

local function read_proc(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

--- What the trainer holds now, and the processor seconds it has used.
local function look(pid)
  local status, handles = read_proc(("/proc/%d/status"):format(pid)), 0
  for _ in require("lfs").dir(("/proc/%d/fd"):format(pid)) do handles = handles + 1 end
  local numbers = {} -- proc(5): from the third on, the state
  for word in read_proc(("/proc/%d/stat"):format(pid)):match "^.*%) (.*)$":gmatch "%S+" do
    numbers[#numbers + 1] = tonumber(word) or false
  end
  local user, system = numbers[12], numbers[13]
  return {
    resident = tonumber(status:match "VmRSS:%s*(%d+)") / 1024, threads = tonumber(status:match "Threads:%s*(%d+)"),
    handles = handles - 3, -- ".", ".." and the folder being listed is this process's, not the trainer's
    seconds = (user + system) / TICKS,
  }
end

-- ---- what consoles do -------------------------------------------------------------------------------------------

local LINES = {
  "run", "run.stage", "run.losses.denoise", "student.final.projection.bias", "#run:parameters()",
  "run.optim.lr = 1e-3 + 1e-6 * (run.step % 100)", "run.ema = 0.9", "run.stage.losses.features.weight = 0.5",
  "run.optim.lr = schedule.cosine { from = 1e-3, to = 1e-4, begin = 0, finish = 1000000 }", "run:sample { count = 4 }",
  "run:checkpoint()", "run:pause() run:resume()", "pg.ones(64, 64):matmul(pg.ones(64, 64)):sum()",
  "run.stage.finish = stop.at_step(100000000)",
  "run.stage.finish = stop.any(stop.at_step(100000000), stop.plateau { loss = 'denoise', patience = 1000000 })",
  "run.stage.finish = stop.custom { needs = { signal.loss { 'denoise' } }, function(event, state) "
    .. "return event.denoise > 1e9, { n = (state.n or 0) + 1 } end }",
  "run.stage.finish = stop.gradient_angle { block = 1, images = 4, time = { 0.5 }, from = 1, every = 50, below = -1 }",
  "run:set('student.final.projection.bias', run:parameter 'student.final.projection.bias')",
  "error { 'a table' }", "while true do end", "local t = {} for k = 1, 1e5 do t[k] = k end return #t", "x = = 1",
  "t = {} for k = 1, 300 do t[k] = pg.ones(1000) end",
}

local asked, failed, opened = 0, {}, 0

local function talk(times)
  local consoles = {}
  for k = 1, 1 + opened % 4 do consoles[k] = client.connect(runs .. "/faults") end
  opened = opened + #consoles
  for k = 1, times do
    local line = LINES[asked % #LINES + 1]
    local limit = C.pg_clock_seconds() + HANGS
    local answer = consoles[k % #consoles + 1]:ask({ eval = line, limit = 0.1 },
      function() return C.pg_clock_seconds() > limit end)
    if not answer then error(("no answer within %d s to: %s"):format(HANGS, line), 0) end
    if answer.error then failed[line] = (failed[line] or 0) + 1 end
    asked = asked + 1
  end
  local step = json.decode(json.encode(consoles[1]:ask { eval = "run.step" })).value
  for k, console in ipairs(consoles) do
    if k % 2 == 0 then C.pg_console_write(console.handle, '{"eval":"run', 12) end -- some leave without a word
    console:close()
  end
  return tonumber(step)
end

-- ---- figures ----------------------------------------------------------------------------------------------------

local function row(minute, now, before)
  now.ms = (now.seconds - before.seconds) / (now.step - before.step) * 1e3
  print(("%7.1f min  step %8d  %6.1f MiB resident  %d handles  %d threads  %6.2f ms of processor a step  %d lines"):
    format(minute, now.step, now.resident, now.handles, now.threads, now.ms, asked))
  io.stdout:flush()
  return now
end

local function mean(rows, first, last, name)
  local sum = 0
  for k = first, last do sum = sum + rows[k][name] end
  return sum / (last - first + 1)
end

--- Compares the last third with the third before it: in the first the allocator and the caches fill up.
local function judge(rows)
  local third, grew = math.max(math.floor(#rows / 3), 1), 0
  for name, most in pairs { resident = 1.03, handles = 1.1, threads = 1, ms = 1.25 } do
    local before = mean(rows, #rows - 2 * third + 1, #rows - third, name)
    local after = mean(rows, #rows - third + 1, #rows, name)
    local fine = after <= before * most + 1e-9
    print(("%-8s %8.2f in the second third, %8.2f in the last: %s"):format(name, before, after,
      fine and "flat" or "it grew"))
    if not fine then grew = grew + 1 end
  end
  return grew
end

local pid = start()
print(("trainer %d in %s"):format(pid, folder))
local waited = os.time()
while not files.exists(runs .. "/faults/console.sock") do
  if os.time() - waited > HANGS then error "the trainer does not start" end
  os.execute "sleep 0.2"
end
local rows, began, every = {}, C.pg_clock_seconds(), math.min(60, minutes * 6)
local before = look(pid)
before.step = talk(1)
while C.pg_clock_seconds() - began < minutes * 60 do
  local step = talk(6)
  os.execute "sleep 0.3"
  if C.pg_clock_seconds() - began >= every * (#rows + 1) then
    local now = look(pid)
    now.step = step
    rows[#rows + 1] = row((C.pg_clock_seconds() - began) / 60, now, before)
    before = now
  end
end
os.execute("kill -TERM " .. pid)
local stopped = os.time()
while files.exists(("/proc/%d"):format(pid)) and os.time() - stopped < HANGS do os.execute "sleep 0.2" end
for line, count in pairs(failed) do print(("%5d times an error: %s"):format(count, line)) end
print(("%d consoles attached, %d lines"):format(opened, asked))
local text = files.read(folder .. "/output")
if not text:find "stopped after step" then print("the trainer did not stop as it should:\n" .. text:sub(-2000)) end
return (judge(rows) == 0 and text:find "stopped after step") and 0 or 1
