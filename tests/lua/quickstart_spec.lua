-- alone: it uses every core for minutes
-- The main job: quickstart.lua as a user runs it, and an independent judge of its samples.
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

describe("quickstart", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

  it("trains, lets go of its teacher and draws what it is asked for", function()
    local folder, started = in_folder(), core.C.pg_clock_seconds()
    local status, text = tiny.perigee(("train recipes/quickstart.lua --threads %d --runs %s"):format(
      core.C.pg_threads(), tiny.quote(folder)), "PERIGEE_CACHE=" .. tiny.quote(folder .. "/cache"))
    local seconds = core.C.pg_clock_seconds() - started
    assert.equal(0, status, text)
    print(("quickstart without its build: %.0f s"):format(seconds))

    assert.truthy(text:find "teacher shapes%-teacher: %d+ steps", text)
    assert.truthy(text:find "stage align ends %(.-%); stage free begins", text)
    assert.truthy(text:find "samples: %S+%.png", text)

    local run = folder .. "/quickstart"
    local stages = {}
    for line in io.lines(run .. "/events.jsonl") do
      local event = json.decode(line, "events.jsonl")
      if event.event == "stage" then stages[#stages + 1] = event end
    end
    assert.equal(2, #stages)
    assert.equal("free", stages[2].stage)
    assert.truthy(stages[2].freed_mib > 0)

    local judge = require "tests.quickstart.judge"
    local result = judge.judge(run, 500)
    print(("classifier %.1f %%, samples recognised %.1f %%, nearest training picture %.3f (new pictures %.3f)"):format(
      100 * result.classifier, 100 * result.recognised, result.nearest[1], result.nearest_of_new[1]))
    assert.is_true(result.classifier >= 0.98, "the classifier itself is weak")
    assert.is_true(result.recognised >= 0.8, ("only %.1f %% recognised"):format(100 * result.recognised))
    -- a copy would be nearer to a training picture than new pictures of the same kind are
    assert.is_true(result.nearest[1] > 0.5 * result.nearest_of_new[1], "a sample is a copy of a training picture")
  end)
end)
