-- What is not training may fail: training continues, or what has been trained is saved first.
local checkpoint = require "perigee.record.checkpoint"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local stop = require "perigee.stops"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local in_folder = dofile(require("perigee.core.ffi").home .. "/tests/lua/folder.lua")(before_each, after_each)

local function message_of(f, ...)
  local fine, message = pcall(f, ...)
  assert.is_false(fine)
  return tostring(message)
end

describe("a run", function()
  it("continues when its samples fail, and says so", function()
    local calls, recipe = 0, tiny.recipe { checkpoint = 4 }
    recipe.every.sample = 3
    local run, outcome = train.train(recipe, { folder = in_folder "run", quiet = true, sample = function()
      calls = calls + 1
      error("no decoder for latents", 0)
    end })
    run:free()
    assert.same({ "finished", 3 }, { outcome, calls }) -- the run ends at step 12
    assert.matches('"about":"samples","event":"warning","message":"no decoder for latents","step":3',
      files.read(in_folder "run/events.jsonl"), 1, true)
  end)

  it("is saved before an error of a policy stops it, and continues from there", function()
    local broken = true
    local function change(recipe)
      recipe.stages[1].finish = stop.any(stop.custom { function(event)
        if broken and event.step == 3 then error "a typing mistake" end
        return false
      end }, recipe.stages[1].finish)
    end
    local message = message_of(tiny.train, { checkpoint = 0 }, { folder = in_folder "run", change = change })
    assert.matches("a typing mistake", message, 1, true)
    assert.matches("\nstep 3 is saved; continue with --resume", message, 1, true)
    assert.same({ 3 }, checkpoint.list(in_folder "run"))
    broken = false
    tiny.train({ checkpoint = 0 }, { folder = in_folder "run", resume = true, change = change })
    tiny.train({ checkpoint = 0 }, { folder = in_folder "other", change = change })
    assert.is_true(tiny.checkpoint(in_folder "run", 12) == tiny.checkpoint(in_folder "other", 12))
  end)

  it("is saved when its data cannot be read", function()
    local message = message_of(tiny.train, { checkpoint = 0 }, { folder = in_folder "run", change = function(recipe)
      local make = recipe.data.loader
      recipe.data.loader = function(...)
        local loader, calls = make(...), 0
        local next_batch = loader.next
        rawset(loader, "next", function(self)
          calls = calls + 1
          if calls == 6 then error("x.png: cannot be read: Input/output error", 0) end
          return next_batch(self)
        end)
        return loader
      end
    end })
    assert.equal("x.png: cannot be read: Input/output error\nstep 5 is saved; continue with --resume", message)
    assert.same({ 5 }, checkpoint.list(in_folder "run"))
  end)

  it("does not say that it is saved when its first step fails", function()
    local message = message_of(tiny.train, { checkpoint = 0 }, { folder = in_folder "run", change = function(recipe)
      local make = recipe.data.loader
      recipe.data.loader = function(...)
        local loader = make(...)
        rawset(loader, "next", function() error("x.png: cannot be read: Input/output error", 0) end)
        return loader
      end
    end })
    assert.equal("x.png: cannot be read: Input/output error", message)
    assert.same({}, checkpoint.list(in_folder "run"))
  end)

  it("is not saved after a NaN", function()
    local message = message_of(tiny.train, { checkpoint = 2 }, { folder = in_folder "run", change = function(recipe)
      recipe.optim.lr, recipe.optim.clip = 1e30, 0
    end })
    assert.matches("is nan; the run stops", message:lower())
    assert.is_nil(message:find("is saved", 1, true))
  end)

  it("is saved every so many minutes unless the recipe counts steps", function()
    local recipe = tiny.recipe {}
    recipe.every.checkpoint, recipe.every.minutes, recipe.keep = nil, 1e-9, 20
    train.train(recipe, { folder = in_folder "run", quiet = true, steps = 4 }):free()
    assert.same({ 1, 2, 3, 4 }, checkpoint.list(in_folder "run"))
  end)

  it("is saved by every signal that ends a program", function()
    for _, name in ipairs { "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU" } do
      local path = in_folder(name)
      local command = ("train %s --runs %s --align 1000000 --total 2000000 --checkpoint 2 --quiet"):format(
        tiny.quote(tiny.path), path)
      local script = ("set -m; %s >/dev/null 2>&1 & p=$!; n=0; "
        .. "while [ ! -d %s/tiny/checkpoints ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; "
        .. "kill -%s $p; wait $p; echo $?"):format(tiny.command(command), path, name)
      local pipe = io.popen("timeout 120 bash -c " .. tiny.quote(script) .. " 2>/dev/null")
      local status = pipe:read "*a"
      pipe:close()
      assert.equal("0", status:match "%d+", name)
      assert.is_true(#checkpoint.list(path .. "/tiny") > 0)
    end
  end)
end)

describe("--resume", function()
  local function trained()
    tiny.train({ checkpoint = 4 }, { folder = in_folder "run", steps = 8 })
    return checkpoint.path(in_folder "run", 8)
  end

  it("touches nothing when a checkpoint cannot be read", function()
    local path = trained()
    os.execute(("mv %s %s.kept && ln -s %s %s"):format(path, path, path, path)) -- ELOOP
    local before = files.read(in_folder "run/events.jsonl")
    local message = message_of(tiny.train, { checkpoint = 4 }, { folder = in_folder "run", resume = true })
    assert.matches("step-0000008.safetensors", message, 1, true)
    assert.equal(before, files.read(in_folder "run/events.jsonl"))
    os.execute(("mv %s.kept %s"):format(path, path))
    assert.equal(12, tiny.train({ checkpoint = 4 }, { folder = in_folder "run", resume = true }).step)
  end)

  it("refuses another version's checkpoint and leaves it", function()
    local path = trained()
    local text = files.read(path)
    files.write(path, (text:gsub("perigee%-checkpoint", "perigee-Checkpoint")))
    local message = message_of(tiny.train, { checkpoint = 4 }, { folder = in_folder "run", resume = true })
    assert.matches("step-0000008.safetensors", message, 1, true)
    assert.is_true(files.exists(path))
    assert.is_false(files.exists(path .. ".damaged"))
  end)

  it("refuses to begin again when every checkpoint is damaged or gone", function()
    trained()
    for _, step in ipairs { 4, 8 } do files.write(checkpoint.path(in_folder "run", step), "no checkpoint") end
    local before = files.read(in_folder "run/events.jsonl")
    local message = message_of(tiny.train, { checkpoint = 4 }, { folder = in_folder "run", resume = true })
    assert.matches("not a valid safetensors file", message, 1, true)
    for _, step in ipairs { 4, 8 } do files.remove(checkpoint.path(in_folder "run", step)) end
    message = message_of(tiny.train, { checkpoint = 4 }, { folder = in_folder "run", resume = true })
    assert.matches("holds no checkpoint, but its log tells of step-0000008.safetensors (step 8)", message, 1, true)
    assert.equal(before, files.read(in_folder "run/events.jsonl"))
  end)
end)

describe("a log that cannot be written", function()
  local C = require("perigee.core.ffi").C
  local Events = require "perigee.record.events"
  local function fail_after(bytes) C.pg_writer_fail_after(bytes) end

  after_each(function() fail_after(-1) end)

  --- A log, and the sentences that were told.
  local function open()
    local told = {}
    files.make_folder(in_folder())
    return Events.open(in_folder(), function(message) told[#told + 1] = message end), told
  end

  --- Steps in the file, "w" for a warning, "-" for a line that is left out.
  local function logged()
    local left_out = 0
    local found = {}
    for _, event in ipairs(Events.read(in_folder(), function() left_out = left_out + 1 end)) do
      found[#found + 1] = event.event == "warning" and "w" or event.step
    end
    return table.concat(found, " "), left_out
  end

  it("gets every line in its order once it can be, wherever the disk was full", function()
    local line = #'{"event":"step","step":1}\n'
    for _, bytes in ipairs { 0, 1, line - 1, line, line + 1, 2 * line - 1, 2 * line } do
      local log, told = open()
      fail_after(bytes)
      for step = 1, 4 do log:write { event = "step", step = step } end
      assert.equal(1, #told, bytes)
      fail_after(-1)
      log:write { event = "step", step = 5 }
      log:close()
      local steps, left_out = logged()
      assert.equal("1 2 3 4 w 5", steps, bytes)
      assert.is_true(left_out <= 1, bytes)
      assert.matches("is written again: the log could not be written from step %d to step 4 .*: %d lines are late$",
        told[2])
      files.remove(in_folder "events.jsonl")
    end
  end)

  it("has no line of a change that it refused, though all but its end was written", function()
    local log = open()
    local refused = { event = "change", number = 1, step = 2, path = "ema", text = "x", after = 0.5 }
    log:write { event = "step", step = 1 }
    fail_after(#json.encode(refused)) -- its line but for the newline
    assert.matches("No space left", message_of(log.write_first, log, refused))
    log:write { event = "step", step = 3 } -- waits
    assert.matches("No space left", message_of(log.write_first, log, refused))
    fail_after(-1)
    log:close()
    assert.equal("1 3 w", (logged()))
    log = open()
    fail_after(#json.encode(refused))
    message_of(log.write_first, log, refused)
    fail_after(-1)
    assert.matches("bytes in the log; expected at most 262144", message_of(log.write_first, log,
      { event = "change", text = ("x"):rep(3e5) }))
    log:close() -- nothing more comes
    assert.equal("1 3 w", (logged()))
  end)

  it("keeps a bounded number of lines, and counts the others", function()
    local log, told = open()
    fail_after(0)
    local text = ("x"):rep(2 ^ 20)
    for step = 1, 10 do log:write { event = "step", step = step, text = text } end
    fail_after(-1)
    log:close()
    assert.equal("1 2 3 4 5 6 7 w", (logged()))
    assert.matches("from step 1 to step 10 .*: 7 lines are late, 3 are lost$", told[2])
  end)

  it("does not change what is trained", function()
    tiny.train({ checkpoint = 0, total = 9 }, { folder = in_folder "whole" })
    local write, calls = files.append(in_folder "spare"), 0
    write:suspend()
    local class = getmetatable(write)
    local real = class.write
    class.write = function(self, data, bytes)
      if self.path:match "events%.jsonl$" then
        calls = calls + 1
        if calls > 3 then error(self.path .. ": cannot be written: Input/output error", 0) end
      end
      return real(self, data, bytes)
    end
    local fine, _, outcome = pcall(tiny.train, { checkpoint = 0, total = 9 }, { folder = in_folder "broken" })
    class.write = real
    assert.same({ true, "finished" }, { fine, outcome })
    assert.is_true(calls > 3)
    assert.is_true(tiny.checkpoint(in_folder "whole", 9) == tiny.checkpoint(in_folder "broken", 9))
  end)
end)
