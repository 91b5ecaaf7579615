--- What a REPL has at hand: a recipe or a trained run, help, completion, trees of models, plots and pictures.
local pg = require "perigee"
local checkpoint = require "perigee.record.checkpoint"
local files = require "perigee.io.files"
local session = require "perigee.console.session"
local tiny = require "tests.lua.tiny"

local home = require("perigee.core.ffi").home
local in_folder = dofile(home .. "/tests/lua/folder.lua")(before_each, after_each)

local EXACT = { relative = 0, absolute = 0 }
local WEIGHTS = home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"

local function matches_error(expected, body, ...)
  local fine, message = pcall(body, ...)
  assert.is_false(fine)
  assert.matches(expected, message)
end

describe("a trained run at the REPL", function()
  local NAME = "student.blocks.1.mlp.hidden.weight"
  local open

  before_each(function()
    local train = require("perigee.train").train
    train(tiny.recipe { align = 4, total = 8, checkpoint = 3 }, { folder = in_folder(), steps = 6, quiet = true,
      recipe_path = tiny.path, recipe_options = { align = 4, total = 8, checkpoint = 3, weights = WEIGHTS } }):free()
  end)
  after_each(function()
    if open then session.close(open) end
    open = nil
  end)

  it("has the moving averages, or the weights, of the newest checkpoint or of the one that is named", function()
    local before = #files.list(in_folder())
    for path, step in pairs { [in_folder()] = 6, [checkpoint.path(in_folder(), 3)] = 3 } do
      local saved = pg.load_safetensors(checkpoint.path(in_folder(), step))
      for ema, name in pairs { [true] = "ema." .. NAME, [false] = NAME } do
        open = session.open(path, { ema = ema })
        assert.equal(step, open.step)
        assert.equal(step == 6 and "free" or "align", open.stage.name)
        assert.equal(in_folder(), open.folder)
        assert.is_true(open:parameter(NAME):allclose(saved[name], EXACT))
        assert.matches(("at step %d, stage %%w+, the %s of .*step%%-000000%d"):format(step,
          ema and "moving averages" or "weights", step), tostring(open))
        local at_hand = session.names(open)
        assert.same({ 1, 16, 30 }, at_hand.teacher:features(pg.rand { 1, 3, 16, 16 }).shape)
        assert.same({ 1, 3, 16, 16 }, at_hand.student(pg.rand { 1, 3, 16, 16 }, pg.ones { 1 },
          pg.zeros({ 1 }, "int64")).shape)
        session.close(open)
      end
    end
    open = nil
    assert.equal(before, #files.list(in_folder()))
    matches_error("its recipe's options are those", session.open, in_folder(), { values = { batch = 3 } })
  end)

  it("goes on in memory, under the names of a console", function()
    open = session.open(in_folder())
    local whole = open:parameter(NAME)
    assert.same({ "denoise" }, require("perigee.base.tables").sorted_keys(open:train(2)))
    assert.equal(8, open.step)
    assert.is_false(open:parameter(NAME):allclose(whole))
    open:set(NAME, whole)
    assert.is_true(open:parameter(NAME):allclose(whole, EXACT))
    open.ema, open.optim.lr, open.stage.losses.denoise.weight = 0.5, 1e-4, 2
    open.stage.finish = pg.stop.at_step(20)
    assert.equal("stage 2, free: 2·denoise; until at_step(20)", tostring(open.stage))
    assert.same({ 0.5, 1e-4 }, { open.ema, open.optim.lr })
    assert.equal(NAME, open:parameters("student.blocks.1.mlp.hidden.w")[1])
    local path = open:sample { count = 4, steps = 2, path = in_folder "samples.png" }
    assert.same({ 32, 32, 3 }, pg.load_png(path).shape)
    assert.equal(6, checkpoint.list(in_folder())[#checkpoint.list(in_folder())])
    matches_error("did you mean \"step\"", function() return open.stepp end)
    matches_error("run.pause is a running trainer's", function() return open.pause end)
    matches_error("run.step cannot be set", function() open.step = 3 end)
    matches_error("expected a stop", function() open.stage.finish = 3 end)
    matches_error("trains 'losses.features.projector', which this run has given back", open.enter, open, "align")
    matches_error("the last stage", open.finish_stage, open)
  end)
end)
