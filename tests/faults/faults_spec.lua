-- A system call fails once, in train, train --resume, sample and prepare: the program does not crash, names the file,
-- leaves the last checkpoint, and the same command goes on to the very bytes of a run that nothing disturbed.
--
-- Some of the calls are tried, always the same; PERIGEE_FAULT_SWEEP=20 tries twenty of each kind, a large number all.
local core = require "perigee.core.ffi"
local checkpoint = require "perigee.record.checkpoint"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local tiny = require "tests.lua.tiny"

local SWEEP = tonumber(os.getenv "PERIGEE_FAULT_SWEEP" or "")
local shim = (os.getenv "PERIGEE_BUILD" or core.home .. "/build") .. "/tests/faults/perigee_faults.so"
local EINTR, EIO, EMFILE, ENOMEM, ENOSPC = 4, 5, 24, 12, 28

-- with which numbers each kind of call fails, and how many of its calls are tried
local FAULTS = {
  { call = "open", numbers = { EMFILE, EINTR }, tried = 2 },
  { call = "read", numbers = { EIO, EINTR }, tried = 1 },
  { call = "write", numbers = { ENOSPC, EINTR }, tried = 1 },
  { call = "fsync", numbers = { EIO, EINTR }, tried = 1 },
  { call = "rename", numbers = { EIO, EINTR }, tried = 1 },
  { call = "mmap", numbers = { ENOMEM }, tried = 1 },
}

local folder -- of this file's own
local function at(name) return folder "work" .. "/" .. name end

local function shell(command) assert(os.execute((command:gsub("@", folder()))) == 0, command) end

--- Runs a command with one fault, or none. Its status, what it printed, and the path of the call that failed.
local function perigee(arguments, fault)
  for _, name in ipairs { "log", "counts" } do os.remove(folder(name)) end
  local environment = ("PERIGEE_CACHE=%s HOME=%s LD_PRELOAD=%s PERIGEE_FAULT_UNDER=%s PERIGEE_FAULT_LOG=%s "
    .. "PERIGEE_FAULT_COUNTS=%s"):format(at "cache", at "home", shim, at "", folder "log", folder "counts")
  if fault then
    environment = ("%s PERIGEE_FAULT_CALL=%s PERIGEE_FAULT_AT=%d PERIGEE_FAULT_ERRNO=%d PERIGEE_FAULT_MORE=%d"):format(
      environment, fault.call, fault.at, fault.number, fault.more or 0)
    if fault.name then environment = ("%s PERIGEE_FAULT_NAME=%s"):format(environment, fault.name) end
  end
  local status, text = tiny.perigee(arguments, environment)
  return status, text, files.exists(folder "log") and files.read(folder "log") or nil
end

--- How often each kind of call was made by the last command.
local function counts()
  local found = {}
  for call, number in files.read(folder "counts"):gmatch "(%l+) (%d+)" do found[call] = tonumber(number) end
  return found
end

local function train(resume) return ("train tests/faults/recipe.lua --folder %s --runs %s%s"):format(at "", at "runs",
  resume and " --resume" or "") end

local function last_checkpoint() return tiny.checkpoint(at "runs/faults", 4) end

local function samples()
  local list = {}
  for k = 0, 3 do list[k + 1] = files.read(at(("out/%06d.png"):format(k))) end
  return table.concat(list)
end

--- Prepared pictures, their labels and the manifest.
local function prepared()
  local list = { files.read(at "out/images.manifest"), files.read(at "out/images/dataset.json") }
  for k = 0, 7 do list[#list + 1] = files.read(at(("out/images/00000/img%08d.png"):format(k))) end
  return table.concat(list)
end

-- what is tried: the folder that it begins with, the command, the one that goes on after a failure, and its result
local function scenarios()
  local prepare = ("prepare %s %s --size 8"):format(at "data", at "out")
  local sample = ("sample %s --out %s --batch 2"):format(at "runs/faults", at "out")
  return {
    { name = "train", begin = "new", command = train(false), again = train(true), result = last_checkpoint },
    { name = "train --resume", begin = "half", command = train(true), again = train(true), result = last_checkpoint },
    { name = "sample", begin = "whole", command = sample, again = sample, result = samples },
    { name = "prepare", begin = "new", command = prepare, again = prepare, result = prepared },
  }
end

--- The calls that are tried of `count`: all of them, or some, spread evenly.
local function tried(fault, count)
  local list, n = {}, math.min(SWEEP or fault.tried, count)
  for k = 1, n do list[k] = math.floor((k - 0.5) * count / n) + 1 end
  return list
end

local function fresh(scenario)
  shell("rm -rf @/work && cp -a @/" .. scenario.begin .. " @/work")
end

local function expect_checkpoints(scenario, what)
  if scenario.begin == "new" then return end
  local steps = checkpoint.list(at "runs/faults")
  assert.is_true(#steps > 0 and steps[#steps] >= 2, what .. ": no checkpoint")
  checkpoint.open(at "runs/faults", { verify = true, damaged = error })
end

--- The result of a scenario that nothing disturbs, and the number of its calls of each kind.
local undisturbed = {}
local function whole(scenario)
  if not undisturbed[scenario.name] then
    fresh(scenario)
    local status, text = perigee(scenario.command)
    assert.equal(0, status, text)
    undisturbed[scenario.name] = { result = scenario.result(), counts = counts() }
  end
  return undisturbed[scenario.name]
end

local function expect_recovery(scenario, fault, expected)
  local status, text, path = perigee(scenario.command, fault)
  local what = ("%s, %s %d fails with %d: status %d, %s\n%s"):format(scenario.name, fault.call, fault.at, fault.number,
    status, path or "no call", text)
  assert.is_true(status == 0 or status == 1, what) -- no signal
  assert.is_nil(text:find("traceback", 1, true), what)
  if fault.number == EINTR then assert.equal(0, status, what) end
  if status == 1 then
    local name = path:match "([^/]+)/*$":gsub("%.tmp%-.*$", ""):gsub("%.part$", "")
    assert.is_truthy(text:find(name, 1, true), "the file is not named: " .. what)
    expect_checkpoints(scenario, what)
    local again, message = perigee(scenario.again)
    assert.equal(0, again, what .. "\n" .. message)
  end
  assert.is_true(scenario.result() == expected, "another result: " .. what)
  return path and 1 or 0
end

describe("one system call that fails during", function()
  folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

  setup(function()
    require "tests.faults.place"(folder "work", 8)
    shell "cp -a @/work @/new"
    assert.equal(0, (perigee(train(false) .. " --steps 2")))
    shell "cp -a @/work @/half"
    assert.equal(0, (perigee(train(true))))
    shell "cp -a @/work @/whole"
  end)

  for k = 1, 4 do
    local name = ({ "train", "train --resume", "sample", "prepare" })[k]
    for _, fault in ipairs(FAULTS) do
      it(("%s: %s"):format(name, fault.call), function()
        local scenario = scenarios()[k]
        local expected, count = whole(scenario).result, whole(scenario).counts[fault.call]
        assert.is_true(count > 0 or fault.call == "mmap", "no calls are seen")
        local failed, list = 0, tried(fault, count)
        for _, number in ipairs(fault.numbers) do
          for _, call in ipairs(list) do
            fresh(scenario)
            failed = failed + expect_recovery(scenario, { call = fault.call, at = call, number = number }, expected)
          end
        end
        -- the loader reads ahead, so that a command makes some calls more or fewer
        assert.is_true(failed >= 0.5 * #list * #fault.numbers, "most of the calls were not made")
        if SWEEP then print(("%s, %s: %d of %d calls, %d faults"):format(name, fault.call, #list, count, failed)) end
      end)
    end
  end

  --- The log's events, without the numbers that a clock decides.
  local function events()
    local list = {}
    for _, event in ipairs(Events.read(at "runs/faults", error)) do
      event.images_per_second, event.seconds, event.seconds_before, event.freed_mib = nil, nil, nil, nil
      if event.event ~= "pace" then list[#list + 1] = event end
    end
    return list
  end

  it("train, of the log, for a while: every line is there in the end, and a warning", function()
    local scenario = scenarios()[1]
    fresh(scenario)
    assert.equal(0, (perigee(scenario.command)))
    local expected, logged = scenario.result(), events()
    for _, number in ipairs { ENOSPC, EIO } do
      fresh(scenario)
      local status, text = perigee(scenario.command,
        { call = "write", name = "/events.jsonl", at = 5, more = 4, number = number })
      assert.equal(0, status, text)
      assert.is_true(scenario.result() == expected)
      local found, warnings = {}, {}
      for _, event in ipairs(events()) do
        table.insert(event.about == "log" and warnings or found, event)
      end
      assert.same(logged, found)
      assert.equal(1, #warnings)
      assert.matches("the log could not be written from step %d to step %d .*: 5 lines are late$", warnings[1].message)
      assert.matches("note: [^\n]*/events%.jsonl: cannot be written: [^\n]*; the log's lines wait in memory", text)
      assert.matches("note: the log is written again: the log could not", text)
    end
  end)

  it("train, of the log, to the end: it ends as ever, and says how many lines are lost", function()
    local scenario = scenarios()[1]
    local expected = whole(scenario).result
    fresh(scenario)
    local status, text = perigee(scenario.command,
      { call = "write", name = "/events.jsonl", at = 3, more = 1e6, number = ENOSPC })
    assert.equal(0, status, text)
    assert.is_true(scenario.result() == expected)
    assert.matches("note: the log could not be written from step 1 to step 4 [^\n]*: %d+ lines are late; at the end "
      .. "they are lost", text)
    assert.equal(2, #events())
    status, text = perigee(scenario.again) -- a log without its end
    assert.equal(0, status, text)
    assert.matches("is finished: 4 steps", text)
    assert.is_true(scenario.result() == expected)
  end)
end)
