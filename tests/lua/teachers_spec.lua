-- Several teachers at once: each loss reads its own, each is kept as long as a stage needs it, in memory or in files.
local ffi = require "ffi"
local describe_recipe = require "perigee.recipe.describe"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local price = require "perigee.cost.price"
local recipes = require "perigee.recipe.load"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

ffi.cdef "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)
local FIXTURES = door.home .. "/tests/oracle/fixtures/"

local given = os.getenv "PERIGEE_CACHE"
before_each(function() ffi.C.setenv("PERIGEE_CACHE", in_folder "cache", 1) end)
after_each(function()
  if given then ffi.C.setenv("PERIGEE_CACHE", given, 1) else ffi.C.unsetenv "PERIGEE_CACHE" end
end)

local function recipe_of(options)
  local values = { weights = FIXTURES .. "haste_teacher.weights.safetensors",
    other = FIXTURES .. "encoder_deit.weights.safetensors" }
  for key, value in pairs(options or {}) do values[key] = value end
  return recipes.load(door.home .. "/tests/lua/recipes/two_teachers.lua", { values = values }).value
end

--- Trains to the end: the last checkpoint's bytes, and the losses by step.
local function trained(name, options)
  train.train(recipe_of(options), { folder = in_folder(name), quiet = true }):free()
  local losses = {}
  for line in io.lines(in_folder(name .. "/events.jsonl")) do
    local event = json.decode(line)
    if event.losses then losses[event.step] = event.losses end
  end
  return tiny.checkpoint(in_folder(name), 5), losses
end

describe("several teachers", function()
  it("give each loss what the teacher that it names gives alone", function()
    local _, both = trained "both"
    for only, names in pairs { wide = { "wide features", "attention" }, small = { "small features", "gram" } } do
      local _, alone = trained(only, { only = only })
      for _, name in ipairs(names) do
        assert.equal(alone[1][name], both[1][name], name) -- the first step's: the same student
      end
    end
    assert.is_nil(both[3]["wide features"])
    assert.is_number(both[4]["small features"])
  end)

  it("are kept in files, with the same bits", function()
    local live, losses = trained "live"
    local kept, again = trained("kept", { cache = true })
    assert.same(losses, again)
    assert.is_true(live == kept)
    assert.equal(4, #files.list(in_folder "cache/features")) -- patches of both, queries and keys of two blocks of one
    local before = files.list(in_folder "cache/features")
    trained("alone", { cache = true, only = "small" })
    assert.same(before, files.list(in_folder "cache/features")) -- a teacher alone finds its files
  end)

  it("keep their names as judges", function()
    local source = files.read(door.home .. "/tests/lua/recipes/two_teachers.lua")
    files.write(in_folder "recipe.lua", (source:gsub('"tests/oracle/', ('"%s/tests/oracle/'):format(door.home))))
    json.write(in_folder "config.json", {})
    for _, name in ipairs { "teacher:wide", "teacher:small" } do
      assert.equal(name, require("perigee.metrics.judge").open(name, in_folder(), { device = "cpu" }).name)
    end
  end)

  it("leave memory when no later stage needs them, each by itself", function()
    local recipe, seen = recipe_of(), {}
    local wide, small = recipe.teachers[2].model, recipe.teachers[1].model
    local run = require("perigee.train.run").new(recipe, {})
    for stage = 1, 3 do
      assert.is_true(run:enter_stage(stage))
      seen[stage] = { wide:is_materialised(), small:is_materialised() }
    end
    run:free()
    assert.same({ { true, true }, { false, true }, { false, false } }, seen)
    local stages = price.recipe(recipe)
    local bytes = {}
    for k, stage in ipairs(stages) do bytes[k] = stage.memory.teacher end
    assert.is_true(bytes[1] > bytes[2] and bytes[2] > 0 and bytes[3] == 0)
    assert.equal(wide:parameter_count() + small:parameter_count(), stages[1].parameters.teacher)
  end)

  it("are in config.json by their names", function()
    local config = describe_recipe.config(recipe_of())
    assert.same({ 30, 24 }, { config.teachers.wide.width, config.teachers.small.width })
    assert.is_nil(config.teacher)
    assert.equal("small", config.stages[1].losses[4].settings.teacher)
    assert.same({ student = { 2, 3 }, teacher = { 3, 4 }, of = "wide" }, config.stages[1].losses[3].settings)
  end)
end)

describe("a recipe with several teachers", function()
  local recipe
  before_each(function() recipe = recipe_of() end)

  local function again(fields, ...)
    local losses = { { 1, pg.loss.flow_matching() }, ... }
    local all = { name = "again", student = recipe.student, data = recipe.data,
      stages = { { name = "a", losses = losses, finish = pg.stop.at_step(1) } } }
    for key, value in pairs(fields) do all[key] = value end
    return message_of(function() train.train(pg.recipe(all), { quiet = true, steps = 1 }):free() end)
  end

  local function refused(part, ...)
    assert.matches(part, (again(...)), 1, true)
  end

  it("is told which is meant, or which there are", function()
    local wide, small = recipe.teachers[2].model, recipe.teachers[1].model
    local two = { teachers = { dino = wide, clip = small } }
    local features = pg.loss.feature_alignment
    refused("teachers_spec.lua", two, { 1, features { block = 1 } })
    refused("loss 'features': the recipe has several teachers; say which with teacher = NAME, one of clip, dino", two,
      { 1, features { block = 1 } })
    refused("loss 'features': unknown teacher 'dimo'; expected one of clip, dino; did you mean \"dino\"?", two,
      { 1, features { block = 1, teacher = "dimo" } })
    refused("loss 'features': it names the teacher 'clip', and the recipe has one without a name", { teacher = wide },
      { 1, features { block = 1, teacher = "clip" } })
    refused("it has both 'teacher' and 'teachers'", { teacher = wide, teachers = two.teachers })
    refused("recipe: teachers has the name 'my clip'", { teachers = { ["my clip"] = wide } })
    refused("recipe: teachers has an entry without a name", { teachers = { wide, small } })
    refused("recipe: teachers.dino is a number; expected an encoder", { teachers = { dino = 1 } })
    refused("recipe: teachers is empty", { teachers = {} })
    refused("teachers.clip, a sit, is not an encoder", { teachers = { dino = wide, clip = recipe.student } },
      { 1, features { block = 1, teacher = "dino" } })
    assert.matches("loss 'attention': teacher has 'by'; expected blocks and, of several teachers, the name",
      (message_of(pg.loss.attention_alignment, { student = { 1 }, teacher = { 1, by = "clip" } })))
  end)

  it("is told of a block that the named teacher has not", function()
    local two = { teachers = { dino = recipe.teachers[2].model, clip = recipe.teachers[1].model } }
    refused("loss 'attention': student block 1 to teacher block 3, of 3 and 2", two,
      { 1, pg.loss.attention_alignment { student = { 1 }, teacher = { 3, of = "clip" } } })
  end)

  it("gives a loss of its own the one that it says, or all", function()
    local two = { teachers = { dino = recipe.teachers[2].model, clip = recipe.teachers[1].model } }
    local function own(options, name)
      return { 1, pg.loss.custom { name = "own", teacher = options.teacher, needs_teacher = options.needs_teacher,
        compute = function(_, context)
          return context:teacher_features(name).patches:mean() * context:tap("block 1"):mean()
        end } }
    end
    refused("this loss: the recipe has several teachers; say which", two, own { needs_teacher = true })
    refused("stage 'a' reads teachers.clip.", two, own({ teacher = "dino" }, "clip"))
    refused("give the loss `teacher = \"clip\"`", two, own({ teacher = "dino" }, "clip"))
    for _, name in ipairs { "dino", "clip" } do
      train.train(pg.recipe { name = "own", student = recipe_of().student, data = recipe.data, teachers = two.teachers,
        stages = { { name = "a", losses = { { 1, pg.loss.flow_matching() }, own({ needs_teacher = true }, name) },
          finish = pg.stop.at_step(1) } } }, { quiet = true }):free()
    end
  end)
end)
