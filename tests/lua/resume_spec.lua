-- A resumed run is the uninterrupted one, bit for bit; what a checkpoint refuses; what is kept.
local checkpoint = require "perigee.record.checkpoint"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

--- Trains in one go and in pieces that end at the given steps; every checkpoint that both have must have the same
--- bytes.
local function compare(options, ends)
  local whole, pieces = in_folder "whole", in_folder "pieces"
  tiny.train(options, { folder = whole })
  for _, step in ipairs(ends) do tiny.train(options, { folder = pieces, steps = step, resume = true }) end
  local _, outcome = tiny.train(options, { folder = pieces, resume = true })
  assert.equal("finished", outcome)
  local compared = 0
  for _, step in ipairs(checkpoint.list(whole)) do
    if files.exists(checkpoint.path(pieces, step)) then
      compared = compared + 1
      assert.is_true(tiny.checkpoint(whole, step) == tiny.checkpoint(pieces, step), "step " .. step)
    end
  end
  return compared
end

describe("a resumed run", function()
  it("equals the uninterrupted one in every byte, whichever step it was stopped at", function()
    for stopped = 1, 11 do
      assert.is_true(compare({ checkpoint = 12, keep = 20 }, { stopped }) >= 1)
      files.remove_tree(in_folder "whole")
      files.remove_tree(in_folder "pieces")
    end
  end)

  it("does so with pieces of batches, recomputed blocks, and the gradient angle measured", function()
    assert.equal(3, compare({ micro = 2, recompute = true, angle = true, keep = 20 }, { 1, 5, 6, 7 }))
  end)

  it("does so in bfloat16 and in float64", function()
    assert.equal(3, compare({ precision = "bf16", keep = 20 }, { 5 }))
    files.remove_tree(in_folder "whole")
    files.remove_tree(in_folder "pieces")
    assert.equal(3, compare({ precision = "float64", keep = 20 }, { 7 }))
  end)

  it("does so with any optimiser", function()
    assert.equal(3, compare({ optim = "lion", keep = 20 }, { 5 }))
    files.remove_tree(in_folder "whole")
    files.remove_tree(in_folder "pieces")
    assert.equal(3, compare({ optim = "lion", precision = "bf16", micro = 4, keep = 20 }, { 7 }))
  end)

  it("computes with a tensor that was set by hand, in bfloat16 too", function()
    local run = tiny.train({ precision = "bf16" }, { folder = in_folder "run", steps = 2, keep = true })
    local name = "student.blocks.1.mlp.hidden.weight"
    require("perigee.io.npy").save(in_folder "run/w.npy", run:tensors()[name] * 0 + 3)
    require("perigee.train.changes").make(run, "tensor " .. name, "w.npy", "run:set(...)")
    local group = run.groups[1]
    assert.same(group.parameters:to("bf16"):to("float32"):totable(), group.working:to("float32"):totable())
    assert.equal(3, run:tensors()[name]:select(1, 1):select(1, 1):item())
    run:free()
  end)

  it("continues with weights and rates that were changed while it ran", function()
    local options = { checkpoint = 1, keep = 20, align = 20, total = 30 }
    -- `sample` is called between steps: the place where a user's hand reaches in
    local function turn(run)
      if run.step == 3 then run.optim.lr, run.ema, run.stage.losses.features.weight = 3e-3, 0.5, 0.125 end
    end
    local function with_hand(folder, steps)
      local recipe = tiny.recipe(options)
      recipe.every.sample = 1
      train.train(recipe, { folder = folder, steps = steps, quiet = true, sample = turn }):free()
    end
    with_hand(in_folder "whole", 8)
    with_hand(in_folder "pieces", 5)
    tiny.train(options, { folder = in_folder "pieces", steps = 8, resume = true })
    assert.is_true(tiny.checkpoint(in_folder "whole", 8) == tiny.checkpoint(in_folder "pieces", 8))
    tiny.train(options, { folder = in_folder "untouched", steps = 8 })
    assert.is_false(tiny.checkpoint(in_folder "whole", 8) == tiny.checkpoint(in_folder "untouched", 8))
  end)

  it("follows a recipe that was edited since", function()
    tiny.train({ align = 20, total = 30 }, { folder = in_folder "run", steps = 4 })
    local run = tiny.train({ align = 20, total = 30, lr = 5e-4 },
      { folder = in_folder "run", steps = 5, resume = true })
    assert.equal(5e-4, run.optim.lr)
    run = tiny.train({ align = 6, total = 8 }, { folder = in_folder "run", resume = true })
    assert.equal(8, run.step)
    assert.is_true(run.finished)
    -- a later end than the one reached
    run = tiny.train({ align = 6, total = 10 }, { folder = in_folder "run", resume = true })
    assert.equal(10, run.step)
  end)

  it("that was finished stays as it is", function()
    tiny.train({}, { folder = in_folder "run" })
    local before = files.read(in_folder "run/events.jsonl")
    local run, outcome = tiny.train({}, { folder = in_folder "run", resume = true })
    assert.equal("finished", outcome)
    assert.equal(12, run.step)
    local after = files.read(in_folder "run/events.jsonl")
    assert.equal(before, after:sub(1, #before))
    assert.is_nil(after:sub(#before + 1):find '"event":"step"')
  end)

  it("begins again if it has no checkpoint yet", function()
    files.make_folder(in_folder "run")
    files.write(in_folder "run/events.jsonl", '{"event":"start","step":0}\n{"event":"step","st')
    local run = tiny.train({}, { folder = in_folder "run", steps = 2, resume = true })
    assert.equal(2, run.step)
    assert.is_nil(files.read(in_folder "run/events.jsonl"):find('"st\n', 1, true))
  end)

  it("logs each step once", function()
    local options = { checkpoint = 4 }
    tiny.train(options, { folder = in_folder "run", steps = 10 })
    files.remove(checkpoint.path(in_folder "run", 10)) -- as if it had been killed after step 10
    tiny.train(options, { folder = in_folder "run", resume = true })
    local steps, ends = {}, 0
    for line in io.lines(in_folder "run/events.jsonl") do
      local event = json.decode(line)
      if event.event == "step" then steps[#steps + 1] = event.step end
      if event.event == "end" then ends = ends + 1 end
    end
    assert.same({ 2, 4, 6, 8, 10, 12 }, steps)
    assert.equal(1, ends)
  end)
end)

describe("the newest decision wins:", function()
  local changes = require "perigee.train.changes"

  --- Trains until `steps` or the end; `at[step](run)` is what a hand does between two steps.
  local function go(name, options, at, how)
    how = how or {}
    local function open(run)
      return { between_steps = function() if at[run.step] then at[run.step](run) end end, close = function() end }
    end
    local run, outcome = train.train(tiny.recipe(options), { folder = in_folder(name), quiet = true, console = open,
      steps = how.steps, resume = how.resume, from = how.from and in_folder(how.from) })
    run:free()
    return run, outcome
  end

  local function finish(text) return function(run) changes.make(run, "stage.finish", text, "by hand") end end

  local function end_of_align(name)
    for line in io.lines(in_folder(name .. "/events.jsonl")) do
      local event = json.decode(line)
      if event.event == "stage" and event.from == "align" then return event.step end
    end
  end

  it("a console's policy stays where the recipe's is as it was, and gives way where that was edited", function()
    go("run", { align = 20, total = 30 }, { [3] = finish "stop.at_step(9)" }, { steps = 5 })
    files.make_folder(in_folder "edited/checkpoints")
    for _, file in ipairs { "events.jsonl", "checkpoints/step-0000005.safetensors" } do
      files.write(in_folder("edited/" .. file), files.read(in_folder("run/" .. file)))
    end
    go("run", { align = 20, total = 30 }, {}, { resume = true, steps = 12 })
    assert.equal(9, end_of_align "run")
    go("edited", { align = 7, total = 30 }, {}, { resume = true, steps = 12 })
    assert.equal(7, end_of_align "edited")
    go("whole", { align = 7, total = 30 }, {}, { steps = 12 })
    assert.is_true(tiny.checkpoint(in_folder "whole", 12) == tiny.checkpoint(in_folder "edited", 12))
  end)

  local function end_stage(run) changes.make(run, "finish_stage", nil, "run:finish_stage()") end

  for what, act in pairs {
    ["a console's finish"] = finish "stop.at_step(6)", ["finish_stage()"] = end_stage,
    ["finish_stage() under a console's finish"] = function(run)
      finish "stop.at_step(12)"(run) -- which the recipe has later too
      end_stage(run)
    end,
  } do
    it(("a run that %s ended in its last stage stays so, until the recipe has a later end"):format(what), function()
      local options = { align = 4, total = 30, checkpoint = 0 }
      local run, outcome = go("run", options, { [7] = act })
      assert.equal("finished", outcome)
      local ended = run.step
      assert.is_true(ended == 7 or ended == 8)
      run, outcome = go("run", options, {}, { resume = true })
      assert.same({ "finished", ended }, { outcome, run.step })
      -- neither can another run begin there: an error, and no folder
      assert.matches(("step%%-%07d%%.safetensors: that run is finished, at step %d; give a later end to the finish of "
        .. "stage 'free', or begin at an earlier checkpoint"):format(ended, ended),
        message_of(go, "fork", options, {}, { from = "run" }))
      assert.is_false(files.exists(in_folder "fork"))
      -- the recipe's newer finish
      local edited = { align = 4, total = 12, checkpoint = 0 }
      run, outcome = go("fork", edited, {}, { from = "run" })
      assert.same({ "finished", 12 }, { outcome, run.step })
      run, outcome = go("run", edited, {}, { resume = true })
      assert.same({ "finished", 12 }, { outcome, run.step })
      go("whole", edited, {})
      assert.is_true(tiny.checkpoint(in_folder "whole", 12) == tiny.checkpoint(in_folder "run", 12))
      assert.is_true(tiny.checkpoint(in_folder "whole", 12) == tiny.checkpoint(in_folder "fork", 12))
      local ends = select(2, files.read(in_folder "run/events.jsonl"):gsub('"event":"end"', ""))
      assert.equal(1, ends)
    end)
  end

  it("what a hand had set stays in checkpoints that did not say what the recipe had", function()
    local safetensors = require "perigee.io.safetensors"
    local options = { align = 20, total = 30, checkpoint = 0 }
    go("run", options, { [3] = finish "stop.at_step(9)" }, { steps = 5 })
    go("late", { align = 2, total = 30, checkpoint = 0 }, {}, { steps = 5 })
    for _, name in ipairs { "run", "late" } do -- as they were written before
      local path = checkpoint.path(in_folder(name), 5)
      local tensors, metadata = safetensors.load(path)
      local state = json.decode(metadata.perigee)
      assert.equal(name == "run" and "any(patient, at_step(20))" or "at_step(30)", state.recipe_settings.finish)
      assert.equal(name == "run" and 0 or 2, state.stage_begun)
      state.recipe_settings.finish, state.stage_begun = nil, nil
      safetensors.save(path, tensors, { perigee = json.encode(state) })
    end
    go("run", { align = 7, total = 30 }, {}, { resume = true, steps = 12 })
    assert.equal(9, end_of_align "run")
    local run = go("late", { align = 2, total = 30 }, { [6] = finish "stop.after(6)" }, { resume = true })
    assert.equal(8, run.step) -- the stage began after step 2, says the log
  end)
end)

describe("a run from another one's checkpoint", function()
  local signal, stop = require "perigee.signals", require "perigee.stops"

  local function ends_at(step)
    return function(recipe) recipe.stages[1].finish = stop.at_step(step) end
  end

  it("ends as the run that had its policy from the beginning, in every byte", function()
    tiny.train({ total = 10, checkpoint = 2, keep = 9 },
      { folder = in_folder "never", steps = 10, change = ends_at(20) })
    for _, align in ipairs { 4, 5, 6 } do
      local whole, forked = in_folder("whole" .. align), in_folder("forked" .. align)
      tiny.train({ total = 10 }, { folder = whole, change = ends_at(align) })
      local parent = checkpoint.path(in_folder "never", 4)
      tiny.train({ total = 10 }, { folder = forked, from = parent, steps = 9, change = ends_at(align) })
      -- continues, and does not start again
      tiny.train({ total = 10 }, { folder = forked, from = parent, resume = true, change = ends_at(align) })
      assert.is_true(tiny.checkpoint(whole, 10) == tiny.checkpoint(forked, 10), "ends at " .. align)
    end
    assert.equal(10, checkpoint.open(in_folder "never").step)
  end)

  it("builds nothing of a stage that ends where it begins, and fills no cache for it", function()
    tiny.train({ total = 10, checkpoint = 2, keep = 9 },
      { folder = in_folder "never", steps = 6, change = ends_at(20) })
    local Run, cache = require "perigee.train.run", require "perigee.teacher.cache"
    local build, open, built = Run.build_stage, cache.open, {}
    Run.build_stage = function(run)
      built[#built + 1] = run.stage.name
      return build(run)
    end
    cache.open = function() error "the teacher's cache was asked for" end
    finally(function() Run.build_stage, cache.open = build, open end)
    local parent = checkpoint.path(in_folder "never", 4)
    tiny.train({ total = 10, cache = true }, { folder = in_folder "forked", from = parent, change = ends_at(4) })
    assert.same({ "free" }, built)
    tiny.train({ total = 10 }, { folder = in_folder "whole", change = ends_at(4) })
    assert.is_true(tiny.checkpoint(in_folder "whole", 10) == tiny.checkpoint(in_folder "forked", 10))
    built = {} -- and where that was the last stage
    local run, outcome = tiny.train({}, { folder = in_folder "ended", from = parent, change = function(recipe)
      ends_at(4)(recipe)
      recipe.stages[2] = nil
    end })
    assert.same({ 4, "finished", {} }, { run.step, outcome, built })
    assert.is_true(checkpoint.open(in_folder "ended").finished)
  end)

  it("has the log of its beginning, each step once", function()
    local function angles(recipe)
      recipe.stages[1].finish = stop.at_step(20)
      recipe.stages[1].signals = { signal.gradient_angle { block = 2, images = 8, from = 2, every = 2 } }
    end
    local function trigger(recipe)
      recipe.stages[1].finish = stop.gradient_angle { block = 2, images = 8, from = 2, every = 2, below = 1.5 }
    end
    tiny.train({ total = 8, checkpoint = 4 }, { folder = in_folder "never", steps = 6, change = angles })
    local run = tiny.train({ total = 8 },
      { folder = in_folder "forked", from = checkpoint.path(in_folder "never", 4), change = trigger })
    assert.equal(8, run.step)
    local seen = {}
    for line in io.lines(in_folder "forked/events.jsonl") do
      local event = json.decode(line)
      seen[#seen + 1] = event.event == "signal" and "angle" .. event.step or event.event .. event.step
      if event.event == "fork" then assert.equal(checkpoint.path(in_folder "never", 4), event.from) end
      if event.event == "stage" and event.step == 4 then
        assert.matches("gradient angle .* is below 1.5", event.reason)
      end
    end
    assert.same({ "start0", "stage0", "step2", "angle2", "step4", "checkpoint4", "fork4", "angle4", "stage4", "step6",
                  "step8", "end8", "checkpoint8" }, seen)
  end)

  it("logs the same readings as the run that had its policy from the beginning", function()
    local function trigger(recipe)
      recipe.stages[1].finish = stop.any(stop.gradient_angle { block = 2, images = 8, from = 2, every = 2,
        below = -1.5 }, stop.at_step(6))
    end
    tiny.train({ total = 8, checkpoint = 4 }, { folder = in_folder "never", steps = 4, change = ends_at(20) })
    tiny.train({ total = 8 }, { folder = in_folder "forked", from = in_folder "never", change = trigger })
    tiny.train({ total = 8 }, { folder = in_folder "whole", change = trigger })
    local function readings(name)
      local list = {}
      for line in io.lines(in_folder(name .. "/events.jsonl")) do
        local event = json.decode(line)
        if event.event == "signal" and event.step >= 4 then list[#list + 1] = event end
      end
      return list
    end
    assert.equal(2, #readings "whole")
    assert.same(readings "whole", readings "forked")
  end)

  it("is refused where it isn't the same training", function()
    tiny.train({}, { folder = in_folder "run", steps = 4 })
    assert.matches("was trained with batch 8, not 16",
      message_of(tiny.train, { batch = 16, micro = 16 }, { folder = in_folder "other", from = in_folder "run" }))
    assert.matches("already holds a run",
      message_of(tiny.train, {}, { folder = in_folder "run", from = in_folder "run" }))
  end)
end)

describe("a run's folder", function()
  it("is one trainer's at a time", function()
    tiny.train({}, { folder = in_folder "tiny", steps = 4 })
    local lock = files.lock(in_folder "tiny/lock")
    local complaint = message_of(tiny.train, {}, { folder = in_folder "tiny", resume = true })
    assert.matches("tiny: process %d+ trains in this folder; wait for its end, stop it, or choose another folder",
      complaint)
    lock:free()
    assert.equal(6, tiny.train({}, { folder = in_folder "tiny", steps = 6, resume = true }).step)
    assert.equal(8, tiny.train({}, { folder = in_folder "tiny", steps = 8, resume = true }).step)
  end)

  it("is let go of by one that is killed", function()
    local arguments = ("train %s --runs %s --align 1000000 --total 2000000 --checkpoint 2 --quiet"):format(
      tiny.quote(tiny.path), in_folder())
    local pipe = io.popen(("( %s >/dev/null 2>&1 & echo $! )"):format(tiny.command(arguments)))
    local process = pipe:read "*l"
    pipe:close()
    finally(function() os.execute("kill -KILL " .. process .. " 2>/dev/null") end)
    for _ = 1, 600 do
      if #checkpoint.list(in_folder "tiny") > 0 then break end
      os.execute "sleep 0.1"
    end
    local status, output = tiny.perigee(arguments .. " --resume")
    assert.equal(1, status)
    assert.matches("tiny: process " .. process .. " trains in this folder", output)
    os.execute("kill -KILL " .. process .. "; while kill -0 " .. process .. " 2>/dev/null; do sleep 0.1; done")
    local step = checkpoint.open(in_folder "tiny").step
    status, output = tiny.perigee(arguments .. " --resume --steps " .. step + 1)
    assert.equal(0, status, output)
    assert.equal(step + 1, checkpoint.open(in_folder "tiny").step)
  end)
end)

describe("checkpoints", function()
  it("are kept to the newest N", function()
    tiny.train({ checkpoint = 2, keep = 2 }, { folder = in_folder "run" })
    assert.same({ 10, 12 }, checkpoint.list(in_folder "run"))
  end)

  it("that are damaged are set aside, and the one before is taken", function()
    tiny.train({ align = 20, total = 30 }, { folder = in_folder "run", steps = 8 })
    local path = checkpoint.path(in_folder "run", 8)
    local whole = files.read(path)
    files.write(path, whole:sub(1, #whole - 100))
    local run = tiny.train({ align = 20, total = 30 }, { folder = in_folder "run", steps = 8, resume = true })
    assert.equal(8, run.step)
    assert.is_true(files.read(path) == whole)
    assert.is_true(files.exists(path .. ".damaged"))
  end)

  it("with a wrong bit in a tensor are set aside too, and those without sums are taken", function()
    local how = { folder = in_folder "run", steps = 8 }
    tiny.train({ align = 20, total = 30 }, how)
    local path = checkpoint.path(in_folder "run", 8)
    local whole = files.read(path)
    files.write(path, whole:sub(1, -2) .. string.char((whole:byte(-1) + 128) % 256))
    how.resume = true
    assert.equal(8, tiny.train({ align = 20, total = 30 }, how).step)
    assert.is_true(files.read(path) == whole)
    assert.is_true(files.exists(path .. ".damaged"))
    local safetensors = require "perigee.io.safetensors"
    local tensors, metadata = safetensors.load(path)
    safetensors.save(path, tensors, { perigee = metadata.perigee }) -- as they were written before
    how.steps = 9
    assert.equal(9, tiny.train({ align = 20, total = 30 }, how).step)
  end)

  it("leave no temporary files of killed processes, whatever their number", function()
    tiny.train({}, { folder = in_folder "run", steps = 4 })
    local stale = {}
    for k, name in ipairs { "checkpoints/step-0000008.safetensors.tmp-1-1", "config.json.tmp-999999999-1" } do
      stale[k] = in_folder("run/" .. name)
      files.write(stale[k], "half")
    end
    tiny.train({}, { folder = in_folder "run", steps = 5, resume = true })
    for _, path in ipairs(stale) do assert.is_false(files.exists(path)) end
  end)

  it("hold no clock, path or command line", function()
    tiny.train({}, { folder = in_folder "one", steps = 4 })
    tiny.train({}, { folder = in_folder "another", steps = 4 })
    assert.is_true(tiny.checkpoint(in_folder "one", 4) == tiny.checkpoint(in_folder "another", 4))
    assert.is_nil(tiny.checkpoint(in_folder "one", 4):find(in_folder(), 1, true))
  end)

  local function refusal(first, second, change)
    tiny.train(first, { folder = in_folder "run", steps = 4 })
    return message_of(tiny.train, second, { folder = in_folder "run", steps = 8, resume = true, change = change })
  end

  it("of a model of another width are refused by tensor and shape", function()
    local message = refusal({ width = 32 }, { width = 48 })
    assert.matches("step%-0000004%.safetensors: '[%w%._]+' is float32 %[[%d,]+%], this model's is float32 %[[%d,]+%]",
      message)
    assert.matches("32", message)
    assert.matches("48", message)
  end)

  it("of a deeper and of a shallower model are refused by tensor", function()
    assert.matches("has no tensor '[%w%._]*blocks%.4[%w%._]+' %[[%d,]+%]: it belongs to another model",
      refusal({ depth = 3 }, { depth = 4 }))
    files.remove_tree(in_folder "run")
    assert.matches("tensor '[%w%._]*blocks%.4[%w%._]+' %[[%d,]+%] belongs to nothing in this model",
      refusal({ depth = 4 }, { depth = 3 }))
  end)

  it("of another seed, batch, precision or optimiser are refused", function()
    assert.matches("was trained with seed 0, not 3", refusal({}, {}, function(recipe) recipe.seed = 3 end))
    assert.matches("was trained with batch 8, not 16", message_of(tiny.train, { batch = 16, micro = 16 },
      { folder = in_folder "run", resume = true }))
    assert.matches("was trained with optimiser adamw, not lion", message_of(tiny.train, { optim = "lion" },
      { folder = in_folder "run", resume = true }))
    assert.matches("was trained with precision float32, not bf16", message_of(tiny.train, { precision = "bf16" },
      { folder = in_folder "run", resume = true }))
  end)

  it("are not written over by a new run", function()
    tiny.train({}, { folder = in_folder "run", steps = 4 })
    assert.matches("already holds a run: continue it with %-%-resume, or choose another folder with %-%-runs",
      message_of(tiny.train, {}, { folder = in_folder "run" }))
  end)

  it("keep every bit of the numbers in a policy's state", function()
    tiny.train({}, { folder = in_folder "run", steps = 5 })
    local state = checkpoint.open(in_folder "run")
    local run = tiny.train({}, { folder = in_folder "live", steps = 5 })
    assert.equal(json.encode(run.policy_state), json.encode(state.policy))
    assert.equal(run.policy_state[1].state.best, state.policy[1].state.best)
    for _, number in ipairs { 0.1, 1 / 3, 1e-300, 2 ^ 52 + 1, -5e-324, 1.7976931348623157e308, 123456789012345680 } do
      assert.equal(number, json.decode(json.encode { number })[1])
    end
  end)
end)
