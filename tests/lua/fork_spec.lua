-- `perigee fork` against runs that had their alignment ended, or kept, from the start.
local checkpoint = require "perigee.record.checkpoint"
local files = require "perigee.io.files"
local home = require("perigee.core.ffi").home
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(home .. "/tests/lua/folder.lua")(setup, teardown)

describe("perigee fork", function()
  local function perigee(status, ...)
    local got, output = tiny.perigee(table.concat({ ... }, " "))
    assert.equal(status, got, output)
    return output
  end

  local function train(name, align)
    perigee(0, "train tests/lua/recipes/tiny.lua --quiet --no-console --runs", tiny.quote(in_folder()), "--name", name,
      "--seed 3 --steps 12 --set keep=9 --set total=12 --set checkpoint=4 --set align=" .. align)
  end

  local function fork(status, name, ...)
    return perigee(status, "fork", tiny.quote(in_folder(name)), "--no-console", ...)
  end

  --- The tensors of a run's last checkpoint, and its stage.
  local function weights(name)
    local state, file = checkpoint.open(in_folder(name))
    assert.equal(12, state.step)
    return checkpoint.digest(file, ""), state.stage_name
  end

  setup(function()
    train("whole", 100)
    train("ended", 6)
  end)

  it("drops the alignment after a step: the same bits as a run that ended it there", function()
    local output = fork(0, "whole", "--at 6 --drop")
    assert.matches("whole%-drop%-6 from step 4 on: the alignment ends after step 6, to step 12", output)
    assert.matches("compare .*whole .*whole%-drop%-6", output)
    local expected, stage = weights "ended"
    assert.equal("free", stage)
    assert.same({ expected, "free" }, { weights "whole-drop-6" })
    assert.is_true(expected ~= weights "whole")
    local config = json.read(in_folder "whole-drop-6/config.json")
    assert.equal("at_step(6)", config.stages[1].finish)
    assert.equal("at_step(12)", config.stages[2].finish)
    assert.matches("stage", perigee(0, "compare", tiny.quote(in_folder "whole"),
      tiny.quote(in_folder "whole-drop-6")))
  end)

  it("keeps it beyond the step at which it ended, from where the run still aligned", function()
    assert.matches("ended%-keep%-6 from step 4 on: the alignment stays", fork(0, "ended", "--at decision --keep"))
    assert.same({ weights "whole" }, { weights "ended-keep-6" })
  end)

  it("is resumed, and ends where it is told to", function()
    fork(0, "whole", "--at 9 --drop --name later --until 12 --quiet")
    assert.matches("already holds a run", fork(1, "whole", "--at 9 --drop --name later"))
    local last = files.list(in_folder "later/checkpoints")
    files.remove(in_folder("later/checkpoints/" .. last[#last]))
    local before = files.read(in_folder "later/events.jsonl"):gsub('{[^\n]*step%-0000012[^\n]*\n', "")
    files.write(in_folder "later/events.jsonl", before)
    fork(0, "whole", "--at 9 --drop --name later --resume --quiet")
    assert.equal("free", (select(2, weights "later")))
  end)

  it("makes a stage where the recipe has none, and refuses what can't be", function()
    local made = require "perigee.replay.fork"
    local recipe = tiny.recipe {}
    recipe.stages[2] = nil
    local forked = made.recipe(recipe, { at = 5, keep = false, last = 9 })
    assert.same({ "align", "free" }, { forked.stages[1].name, forked.stages[2].name })
    assert.equal("denoise", forked.stages[2].losses[1].name)
    assert.is_nil(forked.stages[2].losses[2])
    assert.equal("at_step(9)", forked.stages[2].finish.text)
    assert.equal(1, #recipe.stages)
    forked:validate()
    for words, message in pairs {
      ["--at 6"] = "expected %-%-drop or %-%-keep", ["--drop"] = "%-%-at is missing",
      ["--at decision --drop --until 3"] = "the fork would end at step 3",
      ["--at soon --drop"] = "expected a step or 'decision'",
      ["--at 2 --drop"] = "no checkpoint at or before step 2; its first is that of step 4",
      ["--at 9 --keep"] = "the stage 'align' went from step 0 to 6; expected 1 or later, and 6 at most",
    } do
      assert.matches(message, fork(1, "ended", words))
    end
    assert.matches("nowhere is not a run: events.jsonl is missing", fork(1, "nowhere", "--at 3 --drop"))
  end)
end)
