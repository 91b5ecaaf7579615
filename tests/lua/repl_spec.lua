--- What a REPL has at hand: a recipe or a trained run, help, completion, trees of models, plots and pictures.
local pg = require "perigee"
local checkpoint = require "perigee.record.checkpoint"
local files = require "perigee.io.files"
local session = require "perigee.console.session"
local tiny = require "tests.lua.tiny"

local attention_map = require "perigee.console.attention_map"

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

describe("a model prints as a tree", function()
  it("with names, kinds, shapes and counts; parts of a list that are alike once", function()
    local pair = pg.nn.class "pair"
    function pair:build()
      self.layers = { pg.nn.linear(2, 3), pg.nn.linear(2, 3), pg.nn.linear(2, 2) }
      self.scale, self.fixed = pg.nn.parameter({ 1000 }, pg.nn.initialise.zeros), pg.nn.buffer({ 4 }, function() end)
      self.again, self.other = self.layers[1], self.scale
    end
    local model = pair()
    model.layers[3]:freeze()
    assert.equal([[
pair, 1,024 parameters
  again: linear, 9
    bias: [3] 3
    weight: [3,2] 6
  fixed: [4] fixed
  layers: 15
    1: the same as again
    2: linear, 9
      bias: [3] 3
      weight: [3,2] 6
    3: linear, 6
      bias: [2] 2, frozen
      weight: [2,2] 4, frozen
  other: [1000] 1,000
  scale: [1000], the same as other]], tostring(model))
    assert.matches("\n    1 to 3, each: sit block, 18,912\n", tostring(pg.models.sit { depth = 3, width = 32, heads = 2,
      classes = 5 }))
  end)
end)

describe("pg.show", function()
  local function shown(x, options)
    local path = pg.show(x, in_folder "shown.png", options)
    return pg.load_png(path)
  end

  it("scales from the least to the largest number and enlarges", function()
    local picture = shown(pg.tensor { { -1, 0 }, { 0 / 0, 3 } })
    assert.same({ 512, 512, 3 }, picture.shape)
    assert.same({ { 0, 64 }, { 0, 255 } }, picture:select(3, 2)[{ { 1, 512, 511 }, { 1, 512, 511 } }]:totable())
    assert.same({ { 0, 64 } }, picture:select(3, 1)[{ { 256, 256 }, { 256, 257 } }]:totable())
    assert.same({ { { 128, 128, 128 } } }, shown(pg.tensor { { 2 } }, { low = 0, high = 4, enlarge = 1 }):totable())
    assert.same({ { { 7, 7, 7 } } }, shown(pg.tensor({ { 7 } }, "uint8"), { enlarge = 1 }):totable())
    assert.same({ 1, 2, 3 }, shown(pg.full({ 1, 2 }, 5), { enlarge = 1 }).shape)
  end)

  it("takes pictures and grids in each layout", function()
    local colour = pg.tensor({ { { 1, 2, 3 }, { 4, 5, 6 } } }, "uint8")
    for _, x in ipairs { colour, colour:permute { 3, 1, 2 }, colour:unsqueeze(1),
                         colour:permute({ 3, 1, 2 }):unsqueeze(1) } do
      assert.same(colour:totable(), shown(x, { enlarge = 1 }):totable())
    end
    for shape, size in pairs { [{ 5, 8, 6 }] = { 8 * 2 + 2, 6 * 3 + 4, 3 }, [{ 3, 4, 4, 3 }] = { 10, 10, 3 },
                               [{ 4, 3, 5, 7 }] = { 12, 16, 3 } } do
      assert.same(size, shown(pg.zeros(shape), { enlarge = 1 }).shape)
    end
    assert.same({ 8, 5 * 6 + 8, 3 }, shown(pg.zeros { 5, 8, 6 }, { enlarge = 1, columns = 7 }).shape)
    matches_error("show: a tensor %[2,4,3,5%]; expected", pg.show, pg.zeros { 2, 4, 3, 5 })
    matches_error("repl_spec.lua:%d+: show: expected a tensor, got a number", pg.show, 3)
    matches_error("has no elements", pg.show, pg.zeros { 0, 3 })
    matches_error("unknown option 'hihg'; did you mean \"high\"", pg.show, pg.zeros { 2, 2 }, "x.png", { hihg = 3 })
  end)
end)

describe("pg.plot", function()
  --- How many pixels of a plot have a colour.
  local function pixels(picture, red, green, blue)
    local function is(channel, value) return pg.ops.equal(picture:select(3, channel), value) end
    return (is(1, red) * is(2, green) * is(3, blue)):sum():item()
  end
  local BLUE, ORANGE = { 0, 0x72, 0xB2 }, { 0xD5, 0x5E, 0 }

  it("draws lists, tensors and named lines", function()
    local x, path = pg.arange(5), in_folder "plot.png"
    for given, colours in pairs { [{ { 1, 3, 2 } }] = 1, [{ x, x * 2 }] = 1, [{ x, x, x * 3, title = "two" }] = 2,
      [{ { x, x:square(), label = "a" }, { { 1, 4 } }, log = true }] = 2 } do
      given.path = path
      assert.equal(path, pg.plot(given))
      local picture = pg.load_png(path)
      assert.equal(1800, picture.shape[2])
      assert.is_true(pixels(picture, unpack(BLUE)) > 100)
      assert.equal(colours == 2, pixels(picture, unpack(ORANGE)) > 100)
    end
    pg.plot { { 1, 0 / 0, 1, 1 / 0 }, path = path }
    assert.is_true(pixels(pg.load_png(path), unpack(BLUE)) < 200) -- two dots, no line
  end)

  it("says what is wrong", function()
    matches_error("line 1 has 2 x and 3 y", pg.plot, { { 1, 2 }, { 1, 2, 3 } })
    matches_error("y of line 1 is a tensor %[2,2%]; expected one dimension", pg.plot, { pg.zeros { 2, 2 } })
    matches_error("nothing to draw", pg.plot, {})
    matches_error("no number can be drawn", pg.plot, { { 0 / 0 } })
    matches_error("did you mean \"title\"", pg.plot, { { 1 }, titel = "x" })
  end)
end)

describe("an attention map", function()
  it("leaves sinks out of its scale, and lays a query over the picture", function()
    local rows = {}
    for i = 1, 16 do
      rows[i] = {}
      for j = 1, 16 do rows[i][j] = j == 4 and 0.85 or j == i and 0.04 or 0.01 end
    end
    local map = pg.tensor { rows }
    local sinks, count = attention_map.sinks(map:select(1, 1))
    assert.equal(1, count)
    assert.is_true(sinks[4])
    local picture = pg.full({ 8, 8, 3 }, 200, "uint8")
    local side = { map = map, grid = { 4, 4 } }
    local drawn = attention_map.draw(picture, { side, side }, { 2, 3 })
    assert.same({ 256, 5 * 256 + 4 * 8, 3 }, drawn.shape)
    local function at(x, y) return drawn:select(1, y):select(1, x):totable() end
    assert.same({ 200, 200, 200 }, at(40, 40))
    assert.same({ 255, 32, 32 }, at(2 * 64 + 1, 64 + 1)) -- the query's outline: row 2, column 3
    local over = 256 + 8
    assert.same({ 200, 200, 200 }, at(over + 2 * 64 + 32, 64 + 32)) -- it looks at itself
    assert.same({ 73, 73, 73 }, at(over + 32, 32))                  -- and a quarter as much at others
    assert.same({ 200, 200, 200 }, at(over + 3 * 64 + 32, 32))      -- and at the sink
    local whole = over + 256 + 8
    local function cell(row, column) return at(whole + (column - 1) * 16 + 8, (row - 1) * 16 + 8)[1] end
    assert.same({ 255, 64, 255 }, { cell(1, 1), cell(1, 2), cell(1, 4) })
  end)
end)
