-- Runs that are stopped from outside: SIGINT, SIGTERM, SIGKILL at any moment.
local checkpoint = require "perigee.record.checkpoint"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

--- Starts the program, runs the shell commands in `meanwhile` ($pid is it), and returns its exit status and output.
local function start(arguments, meanwhile)
  -- with job control, since a shell without it lets what it starts in the background ignore SIGINT
  local script = ("set -m; ( %s ) >%s 2>&1 & pid=$!\n%s\nwait $pid; echo $?"):format(tiny.command(arguments),
    tiny.quote(in_folder "output"), meanwhile)
  local pipe = io.popen(("bash -c %s 2>/dev/null"):format(tiny.quote(script)))
  local status = tonumber(pipe:read "*a")
  pipe:close()
  return status, files.read(in_folder "output")
end

--- Shell commands that wait (at most a minute) until a run's log has an event.
local function wait_for(event)
  local log = tiny.quote(in_folder "runs/tiny/events.jsonl")
  return ([[n=0; until grep -qs '"event":"%s"' %s || [ $n -gt 6000 ]; do sleep 0.01; n=$((n+1)); done]]):format(event,
    log)
end

local function train(options)
  return ("train %s --total 100000 --align 50000 %s --runs %s"):format(tiny.quote(tiny.path), options or "",
    tiny.quote(in_folder "runs"))
end

describe("a run that is told to stop", function()
  for _, name in ipairs { "INT", "TERM" } do
    it("by SIG" .. name .. " finishes its step, saves, exits with 0 and says how to continue", function()
      local status, output = start(train "--checkpoint 0", wait_for "step" .. "; kill -" .. name .. " $pid")
      assert.equal(0, status, output)
      local pattern = "stopped after step (%d+); continue with\n  (%./perigee train [^\n]+ %-%-resume)\n"
      local step, command = output:match(pattern)
      assert.is_truthy(command, output)
      assert.same({ tonumber(step) }, checkpoint.list(in_folder "runs/tiny"))
      -- the command as printed, a few steps further
      local arguments = command:gsub("^%./perigee ", "") .. " --steps " .. step + 3
      local again, resumed = tiny.perigee(arguments)
      assert.equal(0, again, resumed)
      assert.matches("resumed at step " .. step, resumed)
      local other = tiny.train({ total = 100000, align = 50000 }, { folder = in_folder "whole", steps = step + 3 })
      assert.is_true(tiny.checkpoint(in_folder "whole",
        other.step) == tiny.checkpoint(in_folder "runs/tiny", other.step))
    end)
  end

  it("by SIGINT twice exits at once", function()
    local status = start(train "--checkpoint 0 --batch 16384 --micro 16384",
      wait_for "stage" .. "; kill -INT $pid; sleep 0.02; kill -INT $pid")
    assert.equal(130, status)
    assert.same({}, checkpoint.list(in_folder "runs/tiny"))
  end)
end)

--- Shell commands that wait until a run's log says once more that a process has begun.
local function wait_for_beginning()
  local log = tiny.quote(in_folder "runs/tiny/events.jsonl")
  local count = ([[$(cat %s 2>/dev/null | grep -c '"event":"\(start\|resume\)"')]]):format(log)
  local script = "before=%s; n=0; until [ %s -gt $before ] || [ $n -gt 500 ]; do sleep 0.01; n=$((n+1)); done; "
  return script:format(count, count)
end

--- Kills a run `times` times at moments drawn at random, from its process's start or from its first step; every time
--- all checkpoints must be readable and none lost.
local function kill(times)
  local folder, newest = in_folder "runs/tiny", 0
  local random = 12345
  for number = 1, times do
    random = (random * 16807) % 2147483647
    local milliseconds = 20 + random % 280
    start(train "--checkpoint 3 --resume",
      (number % 2 == 0 and wait_for_beginning() or "") .. ("sleep %.3f; kill -KILL $pid"):format(milliseconds / 1000))
    local steps = files.exists(folder) and checkpoint.list(folder) or {}
    for _, step in ipairs(steps) do
      local state, file = checkpoint.open(checkpoint.path(folder, step))
      assert.equal(step, state.step)
      for _, name in ipairs(file.names) do file:info(name) end
    end
    local last = steps[#steps] or 0
    assert.is_true(last >= newest, ("kill %d: step %d was there, now the newest is %d"):format(number, newest, last))
    newest = last
  end
  assert.is_true(newest > 0)
  local status, output = tiny.perigee(train("--checkpoint 3 --resume --steps " .. newest + 4))
  assert.equal(0, status, output)
  assert.matches("resumed at step " .. newest .. ",", output)
  for _, name in ipairs(files.list(folder .. "/checkpoints")) do assert.matches("^step%-%d+%.safetensors$", name) end
  tiny.train({ checkpoint = 0, total = 100000, align = 50000 }, { folder = in_folder "whole", steps = newest + 4 })
  -- the policy's text is the same, so is every byte
  assert.is_true(tiny.checkpoint(in_folder "whole", newest + 4) == tiny.checkpoint(folder, newest + 4))
end

describe("a run that is killed", function()
  it("a hundred times loses nothing but the steps since its last checkpoint", function() kill(100) end)
end)
