-- A run that is killed, meets a full disk, or stands still while clocks jump, at moments drawn at random: it goes on
-- where it was, and ends in the very bytes of one that nothing disturbed. A round is a command that was disturbed: a
-- training that fills its teacher's cache, changes its stage and draws previews, or a sampling; it is given again until
-- it ends.
--
-- The suite takes a few rounds. The campaign of docs/reliability.md:
--   PERIGEE_KILLS=1000 PERIGEE_FULL_DISKS=200 PERIGEE_PAUSES=100 ./perigee test --lua --filter kills_spec
-- PERIGEE_SEED=N draws other moments. With PERIGEE_TMPFS=1, as root, the disk that fills up is a tmpfs, not a count of
-- bytes.
local checkpoint = require "perigee.record.checkpoint"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local PICTURES, ALIGN, TOTAL, SAMPLES = 96, 15, 30, 6
local MOST = 10 -- disturbed commands in a row, after which one is left alone
local REACH = { 0.9, 2, 2 } -- a kill comes within so many times of what the undisturbed command takes
local KILLED = 137
local preload = (os.getenv "PERIGEE_BUILD" or core.home .. "/build") .. "/tests/faults/perigee_%s.so"

local function number(name, default) return tonumber(os.getenv(name) or default) end

local folder -- of this file's own
local function at(name) return folder "work" .. "/" .. name end

local function shell(command)
  local pipe = io.popen(command)
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- ---- chance -----------------------------------------------------------------------------------------------------

local state = number("PERIGEE_SEED", 1) * 7919 % 2147483647
--- A number from 0 to below 1.
local function draw()
  state = state * 16807 % 2147483647
  return (state - 1) / 2147483646
end

-- ---- commands ---------------------------------------------------------------------------------------------------

local TRAIN, SAMPLE, ARCHIVE = 1, 2, 3

local function command(kind)
  if kind == TRAIN then
    return ("train tests/faults/recipe.lua --folder %s --runs %s --align %d --total %d --previews 6 --resume"):format(
      at "", at "runs", ALIGN, TOTAL)
  end
  return ("sample %s --count %d --batch 1 --out %s"):format(at "runs/faults", SAMPLES,
    at(kind == SAMPLE and "out" or "out.npz"))
end

local function environment(more)
  return ("PERIGEE_CACHE=%s HOME=%s %s"):format(at "cache", at "home", more or "")
end

--- The result of all three, as one text for each.
local function results()
  local pictures = {}
  for k = 0, SAMPLES - 1 do pictures[k + 1] = files.read(at(("out/%06d.png"):format(k))) end
  return { tiny.checkpoint(at "runs/faults", TOTAL), table.concat(pictures), files.read(at "out.npz") }
end

--- What the log says of steps, and where stages ended. A line that a full disk kept out of it is not there.
local function log()
  local list = {}
  for line in files.read(at "runs/faults/events.jsonl"):gmatch "[^\n]+" do
    local event = json.decode(line)
    if event.event == "step" then
      list[#list + 1] = ("%d %s"):format(event.step, json.encode(event.losses))
    elseif event.event == "stage" or event.event == "end" then
      list[#list + 1] = ("%d %s"):format(event.step, event.event)
    end
  end
  return table.concat(list, "\n")
end

local function fresh() shell(("rm -rf %s && cp -a %s %s"):format(folder "work", folder "new", folder "work")) end

local whole -- what comes out undisturbed: results, log, and by command seconds, system calls, written bytes and
-- those that the disk holds afterwards

--- KiB that the folder takes.
local function used() return tonumber(shell("du -s --block-size=1024 " .. folder "work"):match "%d+") end

local function undisturbed()
  if whole then return whole end
  whole = { seconds = {}, calls = {}, bytes = {}, held = {} }
  fresh()
  local counting = ("LD_PRELOAD=%s PERIGEE_FAULT_UNDER=%s PERIGEE_FAULT_COUNTS=%s"):format(preload:format "faults",
    at "", folder "counts")
  for kind = TRAIN, ARCHIVE do
    os.remove(folder "counts")
    local began = core.C.pg_clock_seconds()
    local status, text = tiny.perigee(command(kind), environment(counting))
    assert.equal(0, status, text)
    whole.seconds[kind] = core.C.pg_clock_seconds() - began
    local counts = files.read(folder "counts")
    whole.held[kind] = used()
    whole.calls[kind], whole.bytes[kind] = tonumber(counts:match "all (%d+)"), tonumber(counts:match "bytes (%d+)")
  end
  whole.results, whole.log = results(), log()
  return whole
end

-- ---- disturbances -----------------------------------------------------------------------------------------------

--- Each returns the command's status and output; nil as status: it was disturbed as it should be.
local disturb = {}

--- Half of the kills come at a moment, half before a system call on a file.
function disturb.kill(kind)
  local seconds, more = draw() * REACH[kind] * whole.seconds[kind], nil
  if draw() < 0.5 then
    seconds, more = 60, ("LD_PRELOAD=%s PERIGEE_FAULT_UNDER=%s PERIGEE_FAULT_KILL=%d"):format(preload:format "faults",
      at "", 1 + math.floor(draw() * REACH[kind] * whole.calls[kind]))
  end
  local line = tiny.command(command(kind), environment(more))
  local text = shell(("timeout -s KILL %.4f sh -c %s 2>&1; echo status $?"):format(seconds, tiny.quote(line)))
  local status = tonumber(text:match "status (%d+)\n$")
  return status ~= KILLED and status or nil, text
end

local function expect_full(status, text, path)
  assert.is_true(status == 0 or status == 1, text)
  assert.is_nil(text:find("traceback", 1, true), text)
  if status == 0 then return 0, text end
  assert.is_truthy(text:find "No space left on device" or text:find " more, and its disk has ", text)
  if path then
    local name = path:match "([^/]+)/*$":gsub("%.tmp%-.*$", ""):gsub("%.part$", "")
    assert.is_truthy(text:find(name, 1, true), name .. " is not named: " .. text)
  end
  return nil, text
end

function disturb.full_disk(kind)
  os.remove(folder "failed")
  local room = math.floor(draw() * whole.bytes[kind])
  local status, text = tiny.perigee(command(kind), environment(
    ("LD_PRELOAD=%s PERIGEE_FAULT_UNDER=%s PERIGEE_FAULT_ROOM=%d PERIGEE_FAULT_LOG=%s"):format(
      preload:format "faults", at "", room, folder "failed")))
  return expect_full(status, text,
    files.exists(folder "failed") and files.read(folder "failed"):match("^" .. at "" .. "[^/].-/?([^/]+)$"))
end

function disturb.full_tmpfs(kind)
  local now = used()
  local size = now + math.floor(draw() * 1.3 * math.max(whole.held[kind] - now, 16))
  shell(("mount -o remount,size=%dk %s"):format(size, folder "work"))
  local status, text = tiny.perigee(command(kind), environment())
  shell(("mount -o remount,size=64m %s"):format(folder "work"))
  return expect_full(status, text)
end

function disturb.pause(kind)
  local clock = ("LD_PRELOAD=%s PERIGEE_CLOCK_SEED=%d"):format(preload:format "clock", draw() * 1e9)
  local line = tiny.command(command(kind), environment(clock))
  local script = ("( %s ) 2>&1 & pid=$!\n"):format(line)
  for _ = 1, 3 do
    script = script .. ("sleep %.4f; kill -STOP $pid; sleep %.4f; kill -CONT $pid\n"):format(
      draw() * whole.seconds[kind] / 2, draw() * 0.2)
  end
  local text = shell(("bash -c %s 2>/dev/null"):format(tiny.quote(script .. "wait $pid; echo status $?")))
  return tonumber(text:match "status (%d+)\n$"), text
end

-- ---- lives ------------------------------------------------------------------------------------------------------

local hit = {} -- where commands were disturbed

local function place(kind)
  if kind ~= TRAIN then return kind == SAMPLE and "sampling to a folder" or "sampling to an archive" end
  local events = at "runs/faults/events.jsonl"
  local last = files.exists(events) and files.read(events):match "([^\n]+)\n[^\n]*$"
  local features = at "cache/features"
  for _, name in ipairs(files.exists(features) and files.list(features) or {}) do
    if name:match "%.part$" then return "filling the cache" end
  end
  if not last then return "starting" end
  local event = json.decode(last)
  return event.event == "stage" and "changing the stage" or "training, stage " .. (event.stage or "align")
end

local function newest()
  local steps = files.exists(at "runs/faults") and checkpoint.list(at "runs/faults") or {}
  return steps[#steps] or 0
end

--- No temporary files stay behind, and nothing was set aside.
local function expect_tidy()
  local run = "runs/faults"
  for _, name in ipairs { "", "out", "cache/features", run, run .. "/checkpoints", run .. "/samples" } do
    for _, found in ipairs(files.list(at(name))) do
      assert.is_nil(found:match "%.tmp" or found:match "%.part$" or found:match "%.damaged$", name .. "/" .. found)
    end
  end
end

--- From a new folder to samples; returns how many commands were disturbed.
local function live(disturbance, loses_lines)
  local rounds = 0
  for kind = TRAIN, ARCHIVE do
    local ended, before = false, 0
    for attempt = 1, MOST + 1 do
      local status, text
      if attempt > MOST then status, text = tiny.perigee(command(kind), environment())
      else status, text = disturb[disturbance](kind) end
      -- the archive was in its place before the process was killed
      if kind == ARCHIVE and status == 1 and text:find("out.npz is there already", 1, true) then status = 0 end
      assert.is_true(status == nil or status == 0, text)
      if status == nil or disturbance == "pause" then rounds = rounds + 1 end
      if status == 0 then
        ended = true
        break
      end
      hit[place(kind)] = (hit[place(kind)] or 0) + 1
      local now = newest()
      assert.is_true(now >= before, ("step %d was saved, now the newest is %d"):format(before, now))
      before = now
    end
    assert.is_true(ended)
  end
  local found = results()
  for kind = TRAIN, ARCHIVE do assert.is_true(found[kind] == whole.results[kind], "other bytes of command " .. kind) end
  if not loses_lines then assert.equal(whole.log, log()) end
  expect_tidy()
  return rounds
end

local function campaign(disturbance, rounds, loses_lines)
  undisturbed()
  hit = {}
  local done, lives = 0, 0
  while done < rounds do
    fresh()
    if disturbance == "full_tmpfs" then
      shell(("rm -rf %s && mkdir %s && mount -t tmpfs -o size=64m none %s && cp -a %s/. %s"):format(folder "work",
        folder "work", folder "work", folder "new", folder "work"))
    end
    local fine, message = pcall(live, disturbance, loses_lines)
    if disturbance == "full_tmpfs" then shell("umount " .. folder "work") end
    if not fine then error(message, 0) end
    done, lives = done + message, lives + 1
  end
  if rounds < 50 then return end
  print(("%s: %d rounds in %d lives; where they came:"):format(disturbance, done, lives))
  for name, count in pairs(hit) do print(("  %4d %s"):format(count, name)) end
end

describe("a run that", function()
  folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)
  setup(function() require "tests.faults.place"(folder "new", PICTURES) end)

  it("is killed goes on where it was", function() campaign("kill", number("PERIGEE_KILLS", 8)) end)

  it("meets a full disk goes on once there is room", function()
    campaign(os.getenv "PERIGEE_TMPFS" and "full_tmpfs" or "full_disk", number("PERIGEE_FULL_DISKS", 4), true)
  end)

  it("stands still while clocks jump notices nothing", function() campaign("pause", number("PERIGEE_PAUSES", 2)) end)
end)
