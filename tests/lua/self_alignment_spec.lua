-- Self-alignment: the student's own moving average as its teacher, in the same program.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local stage_program = require "perigee.stage.program"
local taps = require "perigee.nn.taps"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)
local loss, stop, ops = pg.loss, pg.stop, pg.ops

local function recipe_of(options)
  local like = tiny.recipe {}
  options = options or {}
  return pg.recipe {
    name = "self", student = like.student, data = like.data, optim = pg.optim.adamw { lr = 1e-3 }, ema = 0.9,
    precision = options.precision, every = { checkpoint = 3 },
    stages = { { name = "align", finish = stop.at_step(6), losses = { { 1, loss.flow_matching() },
      { 0.5, loss.self_alignment { student = 1, teacher = options.teacher or 3, ahead = options.ahead } } } } },
  }
end

local function random(shape, purpose)
  return ops.random_normal(shape, { state = pg.tensor({ 5, 0, 0 }, "int64"), purpose = purpose, dtype = "float32" })
end

describe("self-alignment", function()
  it("is the cosine with the average's block, computed by the average's weights at an earlier time", function()
    local recipe = recipe_of { ahead = 0.3 }
    local run = require("perigee.train.run").new(recipe, {})
    local group, student = run.groups[1], recipe.student
    group.average:copy_(group.average + random(group.average.shape, "other") * 0.3)
    group.parameters:copy_(group.parameters + random(group.average.shape, "own") * 0.05)
    local trace = stage_program.trace(recipe, recipe.stages[1],
      { batch = 4, fixed_time = true, fixed_noise = true, drop_labels = false })
    local executable = core.executable.compile(trace.program, { { name = "value", value = trace.losses.self } })
    local images = (ops.random_uniform({ 4, 16, 16, 3 },
      { state = pg.tensor({ 1, 0, 0 }, "int64"), purpose = "images" }) * 255):to "uint8"
    local inputs = {
      images = images, labels = pg.tensor({ 0, 1, 2, 3 }, "int64"), noise = random({ 4, 3, 16, 16 }, "n"),
      state = pg.tensor({ 9, 2, 0 }, "int64"), time = pg.tensor { 0.1, 0.4, 0.7, 1 } }
    local value = executable:run(inputs).value:item()

    local x0 = ops.images(images, { scale = 2 / 255, offset = -1, dtype = "float32" })
    local drawn = ops.random_uniform({ 4 }, { state = inputs.state, purpose = "average's time", dtype = "float32" })
    local earlier = ops.maximum(inputs.time - drawn * 0.3, 0)
    assert.equal(0, earlier:totable()[1]) -- not below 0
    local function block(number, t)
      local x_t = ops.interpolant(x0, inputs.noise, t, { path = "linear" })
      local _, collected = taps.collect(student.forward, student, x_t, t, inputs.labels)
      return taps.read(collected, "block " .. number)
    end
    local h = block(1, inputs.time)
    group:show(group.average)
    local z = block(3, earlier)
    local expected = ops.feature_alignment(recipe:loss_modules().self.head(h), z):item()
    group:show(group.parameters)
    assert.near(expected, value, 1e-5)
    assert.is_true(math.abs(ops.feature_alignment(recipe:loss_modules().self.head(h), block(3, earlier)):item() - value)
      > 1e-3) -- by the weights themselves it is another
    executable:free()
    run:free()
  end)

  it("sends no gradient to the average", function()
    local recipe = recipe_of()
    local trace = stage_program.trace(recipe, recipe.stages[1], { batch = 2 })
    local p, wrt = trace.program, {}
    for _, entry in ipairs(recipe.student:named_parameters()) do
      wrt[#wrt + 1] = p.captures[recipe:average_of(entry.tensor)]
    end
    assert.is_true(#wrt > 20)
    for _, gradient in ipairs(core.gradient(p, { trace.losses.self }, { pg.tensor(1, {}) }, wrt)) do
      assert.is_false(gradient)
    end
  end)

  it("resumes with the same bits, and trains in bfloat16", function()
    local bytes = {}
    for k, steps in ipairs { 6, 3 } do
      local folder = in_folder(tostring(k))
      train.train(recipe_of(), { folder = folder, steps = steps, quiet = true }):free()
      if steps < 6 then train.train(recipe_of(), { folder = folder, resume = true, quiet = true }):free() end
      bytes[k] = tiny.checkpoint(folder, 6)
    end
    assert.is_true(bytes[1] == bytes[2])
    local run = train.train(recipe_of { precision = "bf16" }, { quiet = true })
    assert.is_true(run.losses.self == run.losses.self and math.abs(run.losses.self) <= 1.01)
    run:free()
  end)

  it("refuses blocks that are not there, or in the wrong order", function()
    assert.matches("loss 'self': block 9 of a student with 3 blocks",
      message_of(function() train.train(recipe_of { teacher = 9 }, { quiet = true }) end))
    assert.matches("the average's block 2 comes before the student's block 5",
      (message_of(loss.self_alignment, { student = 5, teacher = 2 })))
  end)
end)
