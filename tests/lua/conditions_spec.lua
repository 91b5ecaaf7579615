-- What a student takes beside labels: declared inputs against the data, dropping, gradients, resuming, sampling.
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local field = require "perigee.sampling.field"
local files = require "perigee.io.files"
local generate = require "perigee.sampling.generate"
local npy = require "perigee.io.npy"
local pg = require "perigee"
local recipes = require "perigee.recipe.load"
local sampling = require "perigee.recipe.sampling"
local stage_program = require "perigee.stage.program"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local ffi = require "ffi"
pcall(ffi.cdef, "int setenv(const char *name, const char *value, int overwrite); int unsetenv(const char *name);")

local ops, tensor = core.ops, core.tensor
local weights = door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"
local path = door.home .. "/tests/lua/recipes/text.lua"

local function recipe_of(options) return recipes.load(path, { values = options or {} }).value end

local function state_of(seed, step, first) return tensor.tensor({ seed, step, first }, "int64") end

describe("a student with conditions", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

  --- Trains; returns the last checkpoint's bytes and the run, freed.
  local function trained(options, folder, steps)
    local run = train.train(recipe_of(options), { folder = in_folder(folder), steps = steps, resume = true,
      quiet = true })
    run:free()
    return tiny.checkpoint(in_folder(folder), run.step), run
  end

  it("learns, and goes on after an interruption bit for bit", function()
    for _, options in ipairs { {}, { micro = 2 }, { precision = "bf16" } } do
      local whole, run = trained(options, "whole")
      assert.is_true(run.losses.denoise < 2.5, "begins at 4.2")
      trained(options, "pieces", 2)
      trained(options, "pieces", 5)
      assert.is_true(whole == trained(options, "pieces"))
      files.remove_tree(in_folder "whole")
      files.remove_tree(in_folder "pieces")
    end
  end)

  it("trains with a teacher as with its cache, and the gradient angle is measured", function()
    local before = os.getenv "PERIGEE_CACHE"
    ffi.C.setenv("PERIGEE_CACHE", in_folder "cache", 1)
    local live = trained({ teacher = true, weights = weights }, "live")
    local kept = trained({ teacher = true, weights = weights, cache = true }, "kept")
    if before then ffi.C.setenv("PERIGEE_CACHE", before, 1) else ffi.C.unsetenv "PERIGEE_CACHE" end
    assert.is_true(live == kept)
    local log = files.read(in_folder "live/events.jsonl")
    local _, readings = log:gsub('"name":"gradient_angle"', "")
    assert.equal(3, readings)
  end)

  it("is priced without its data", function()
    local priced = require("perigee.cost.price").stage(recipe_of(), recipe_of().stages[1], { device = "h100" })
    assert.is_true(priced.flops > 0)
  end)

  it("has the gradients of finite differences, its null values among them", function()
    local recipe = recipe_of { precision = "float64" }
    recipe.student:materialise { seed = 3, dtype = "float64" }
    local trace = stage_program.trace(recipe, recipe.stages[1], { batch = 4 })
    local parameters, wrt, outputs = recipe.student:named_parameters(), {}, {}
    for k, entry in ipairs(parameters) do wrt[k] = trace.program:capture(entry.tensor) end
    local one = tensor.tensor(1, {}, "float64")
    for k, g in ipairs(core.gradient(trace.program, { trace.total }, { one }, wrt)) do
      outputs[k] = { name = parameters[k].name, value = assert(g, parameters[k].name) }
    end
    outputs[#outputs + 1] = { name = "total", value = trace.total }
    local program = core.executable.compile(trace.program, outputs)
    local inputs = { state = state_of(0, 0, 0), ["weight denoise"] = one }
    for name, t in pairs(recipe.data:loader({ threads = 0 }):next()) do inputs[name] = t end
    local function total() return program:run(inputs).total:item() end
    local gradients = {}
    for name, t in pairs(program:run(inputs)) do gradients[name] = t:clone() end
    local null = gradients["inputs.2.null"]
    assert.is_true(null:abs():sum():item() > 1e-3, "no text was dropped")
    for _, entry in ipairs(parameters) do
      local flat, gradient = entry.tensor:reshape { -1 }, gradients[entry.name]:reshape { -1 }
      for _, at in ipairs { 1, math.ceil(flat.shape[1] * 0.6) } do
        local place, step = flat:narrow(1, at, 1), 1e-5
        local before = place:clone()
        place:copy_(before + step)
        local high = total()
        place:copy_(before - step)
        local low = total()
        place:copy_(before)
        local expected = (high - low) / (2 * step)
        assert.near(expected, gradient:narrow(1, at, 1):item(), 1e-6 * math.max(1, math.abs(expected)), entry.name)
      end
    end
  end)

  it("computes the same in pieces of the batch", function()
    local losses = {}
    for k, micro in ipairs { 4, 2 } do
      local _, run = trained({ precision = "float64", micro = micro, total = 2 }, "pieces of " .. micro)
      losses[k] = run.losses.denoise
    end
    assert.near(losses[1], losses[2], 1e-12)
  end)
end)

describe("conditions in training", function()
  --- What the student would be called with, for a batch of eight.
  local function seen(drop, first, count)
    local recipe = recipe_of()
    recipe.student:materialise { seed = 1 }
    local all = recipe.data:reader({ "labels", "text", "place", "tokens" })
    local numbers = {}
    for k = 1, count do numbers[k] = first + k - 1 end
    local batch = all:read(numbers)
    local values, n = conditions.values { student = recipe.student, batch = batch, labels = batch.labels,
      state = state_of(5, 3, first), dtype = "float32", drop_labels = drop }
    assert.equal(4, n)
    return values, batch, recipe.student
  end

  it("are dropped by sample, all with one number that seed, step and place decide", function()
    local values, batch, student = seen(true, 0, 8)
    local numbers = ops.random_uniform({ 8 }, { state = state_of(5, 3, 0), purpose = "label drop" }):totable()
    local labels, places = values[1]:totable(), values[3]:totable()
    local null = student.no_text:totable()[1]
    local dropped = 0
    for k, number in ipairs(numbers) do
      local text, tokens = values[2]:totable()[k], values[4]:totable()[k]
      assert.equal(number < 0.5 and 5 or batch.labels:totable()[k], labels[k])
      assert.same(number < 0.5 and { null, null, null } or batch.text:totable()[k], text)
      assert.same(number < 0.25 and { 7, 7 } or batch.tokens:totable()[k], tokens)
      assert.same(batch.place:totable()[k], places[k]) -- it has no null
      dropped = dropped + (number < 0.5 and 1 or 0)
    end
    assert.is_true(dropped > 0 and dropped < 8)
    local half = seen(true, 4, 4) -- the second piece of the same batch
    for k = 1, 4 do assert.same(values[k]:narrow(1, 5, 4):totable(), half[k]:totable()) end
  end)

  it("stay where nothing is dropped", function()
    local values, batch = seen(false, 0, 8)
    for k, name in ipairs { "labels", "text", "place", "tokens" } do
      assert.same(batch[name]:totable(), values[k]:totable())
    end
  end)

  it("have the program's dtype where they are floating-point numbers", function()
    local batch = { text = pg.zeros { 2, 3 }, tokens = pg.zeros({ 2 }, "int32") }
    local values = conditions.values { student = { inputs = { "tokens", "text" } }, batch = batch, dtype = "bfloat16" }
    assert.equal("int32", values[1].dtype)
    assert.equal("bfloat16", values[2].dtype)
  end)
end)

describe("samples under conditions", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)
  local recipe

  setup(function()
    recipe = recipe_of()
    recipe.student:materialise { seed = 2 }
  end)

  --- Samples 0 ... count − 1 as lists of numbers.
  local function draw(settings, options)
    settings.count, settings.steps = settings.count or 5, 2
    return generate.all(recipe, sampling.settings("sample", settings, recipe.student), options):totable()
  end

  it("take the records of the data set in turn, whatever the batch size", function()
    local all = draw { count = 9 }
    assert.same(all, draw({ count = 9 }, { batch = 2 }))
    local one = draw({ count = 1, conditions = { text = "data:3", place = "data:3", tokens = "data:3" },
      labels = { 4 } }, { first = 3 })
    assert.same(all[4], one[1])
    assert.same(draw { count = 2, conditions = { text = "data:3,1" } }[2],
      draw({ count = 1, conditions = { text = "data:1" } }, { first = 1 })[1])
  end)

  it("take arrays from files, and numbers", function()
    local reader = recipe.data:reader { "text", "place" }
    local records = reader:read { 6, 2 }
    reader:close()
    npy.save(in_folder "two.npy", records.text)
    npy.save(in_folder "one.npy", records.text:select(1, 2):contiguous():to "float64")
    local from_data = draw { conditions = { text = "data:6,2" } }
    assert.same(from_data, draw { conditions = { text = in_folder "two.npy" } })
    assert.same(draw { conditions = { text = "data:2" } }, draw { conditions = { text = in_folder "one.npy" } })
    assert.are_not.same(from_data, draw { conditions = { text = 0.25 } })
    npy.save(in_folder "flat.npy", pg.zeros { 3, 6 } + 0.25)
    assert.same(draw { conditions = { text = in_folder "flat.npy" } }, draw { conditions = { text = 0.25 } })
    npy.save(in_folder "place.npy", tensor.tensor({ 0.25, 0.5 }, "float32"))
    assert.same(draw { conditions = { place = in_folder "place.npy" } },
      draw { conditions = { place = { 0.25, 0.5 } } })
  end)

  it("are guided from their nulls; what has none stays", function()
    local list = conditions.resolve(recipe.student, recipe.data)
    local reader = recipe.data:reader { "labels", "text", "place", "tokens" }
    local given = reader:read { 0, 1, 2, 3 }
    reader:close()
    local absent = { labels = ops.fill({ 4 }, { value = 5, dtype = "int64" }), place = given.place,
      text = recipe.student.no_text:expand({ 4, 3, 6 }):contiguous(),
      tokens = ops.fill({ 4, 2 }, { value = 7, dtype = "int64" }) }
    local executable = field.compile(recipe.student, list, 4)
    local x = ops.random_normal({ 4, 3, 8, 8 }, { state = state_of(1, 0, 0), purpose = "x" })
    local function at(values, scale)
      return field.new(executable, recipe.student, list, values, { scale = scale })(x, 0.5)
    end
    local with, without = at(given, 1), at(absent, 1)
    local off = at(given, 3) - (without + (with - without) * 3)
    assert.is_true(off:abs():max():item() < 1e-12)
    assert.is_true((with - without):abs():max():item() > 1e-3)
  end)

  it("are what perigee sample draws", function()
    local status, text = tiny.perigee(("train %s --runs %s --cfg 2 --total 2 --quiet"):format(path, in_folder()))
    assert.equal(0, status, text)
    local function sample(rest)
      local code, said = tiny.perigee(("sample %s/text --out %s %s"):format(in_folder(), in_folder "s.png", rest))
      assert.equal(0, code, said)
      return files.read(in_folder "s.png")
    end
    local own = sample ""
    assert.is_true(files.read(in_folder "text/samples/step-0000002.png") == own)
    npy.save(in_folder "prompt.npy", pg.zeros { 3, 6 })
    assert.is_true(sample("--set text=" .. in_folder "prompt.npy") == sample "--set text=0 --set place=data")
    assert.is_false(own == sample "--set text=0")
    assert.is_false(own == sample "--set place=1,0.5")
    for rest, message in pairs {
      ["--set text=nowhere.npy"] = "sample: conditions.text: no file nowhere.npy",
      ["--set txet=1"] = "sample: the student has no input 'txet'; expected one of text, place, tokens",
      ["--set labels=1"] = "`labels` (--labels) is a setting of its own",
      ["--set text=words"] = "conditions.text is 'words'; expected a number, FILE.npy, FILE.npz, data, or data:RECORD",
      ["--set place=1,2,3"] = "conditions.place: 3 numbers; one sample's are 2, [2]",
      ["--set tokens=1.5"] = "conditions.tokens is 1.5; its values are int64",
      ["--set text=data:30"] = "record 30 of the data set 'captions', which has 8",
      ["--set text=test"] = "the recipe names no `test` data",
      ["--set tokens=" .. in_folder "prompt.npy"] = "is float32 [3,6]; expected int64 [2], or [n,...] of that",
    } do
      local code, said = tiny.perigee(("sample %s/text --out %s %s"):format(in_folder(), in_folder "t.png", rest))
      assert.equal(1, code)
      assert.truthy(said:find(message, 1, true), said)
      assert.falsy(said:find "traceback", said)
    end
  end)
end)

describe("docs/conditioning.md", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)

  it("has a recipe that trains, and commands that sample from it", function()
    local page, code = files.read(door.home .. "/docs/conditioning.md"), nil
    for block in page:gmatch "```lua\n(.-)```" do code = block:find("pg.recipe", 1, true) and block or code end
    files.write(in_folder "captions.lua", code)
    local status, text = tiny.perigee(("train %s --runs %s --total 10 --quiet"):format(in_folder "captions.lua",
      in_folder()))
    assert.equal(0, status, text)
    local arguments = page:match "perigee sample runs/captions (%-%-set text=data:2,7[^\n]*) +#":gsub("two.png",
      in_folder "two.png")
    status, text = tiny.perigee(("sample %s/captions %s"):format(in_folder(), arguments))
    assert.equal(0, status, text)
    assert.same({ 48, 48, 3 }, pg.load_png(in_folder "two.png").shape)
  end)
end)

describe("a student's inputs", function()
  --- A recipe whose student takes `inputs`, over data with images, labels, text [77,768] and tokens [77].
  local function recipe_with(inputs, more)
    local student = pg.models.sit { depth = 1, width = 16, heads = 1, patch = 4, size = 8, channels = 3, classes = 2 }
    student.inputs = inputs
    for key, value in pairs(more or {}) do student[key] = value end
    return pg.recipe {
      name = "r", student = student, sample = { cfg = more and more.cfg or 1 },
      data = pg.data.arrays {
        images = pg.zeros({ 2, 8, 8, 3 }, "uint8"), labels = pg.tensor({ 0, 1 }, "int64"), classes = 2, batch = 2,
        fields = { text = { "text.npy", shape = { 77, 768 } }, tokens = pg.zeros({ 2, 77 }, "int64") },
      },
      stages = { { name = "s", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(1) } },
    }
  end

  it("are checked when the recipe is loaded", function()
    for _, case in ipairs {
      { { "labels", "txt" }, "the student 'sit' takes the field 'txt', which the data set 'arrays' does not have; "
        .. "it has images, labels, text, tokens" },
      { { { "text", shape = { 77, 512 } } }, "takes 'text' of [77,512] a sample, the data set 'arrays' has [77,768]" },
      { { { "text", dtype = "int64" } }, "takes 'text' as int64, the data set 'arrays' has float32" },
      { { { "text", null = pg.zeros { 7, 768 } } }, "the null of 'text' is [7,768]; expected [77,768], one sample's" },
      { { { "tokens", null = 0.5 } }, "the null of 'tokens' is 0.5; its values are int64" },
      { { { "text", drop = 0.1 } }, "inputs[1], 'text': drop = 0.1 needs a `null`" },
      { { { "text", nul = 0 } }, "unknown option 'nul'; did you mean \"null\"?" },
      { { { "labels", null = 3 } }, "`null_label` and `drop_labels` are theirs" },
      { { "text", "text" }, "inputs lists 'text' twice" },
      { { 3 }, "inputs[1] is a number; expected a field's name or" },
      { "text", "inputs is a string; expected a list such as" },
      { { { "text", null = 0, drop = 0 } }, "cfg = 2, but the student's input 'text' has drop = 0", { cfg = 2 } },
      { { "text" }, "cfg = 2, but none of the student's inputs has a `null`", { cfg = 2 } },
    } do
      expect.fails(function() recipe_with(case[1], case[3]) end, case[2], "conditions_spec.lua:")
    end
    recipe_with { "labels", { "text", shape = { 77, 768 }, null = pg.zeros { 768 } } }
    recipe_with({ { "text", null = 0 } }, { cfg = 2 })
    recipe_with {}
  end)

  it("may be none: such a student is called with x and t alone", function()
    local values, n = conditions.values { student = { inputs = {} }, batch = {} }
    assert.equal(0, n)
    assert.same({}, values)
  end)
end)

describe("data.arrays with further fields", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)

  it("reads them from memory and from files, by record too", function()
    local text = pg.arange(0, 3 * 2 * 4):reshape({ 3, 2, 4 }):to "float32"
    npy.save(in_folder "text.npy", text)
    for _, memory in ipairs { 0, 2 ^ 20 } do
      local data = pg.data.arrays { images = pg.zeros({ 3, 8, 8, 3 }, "uint8"), batch = 3, shuffle = false,
        fields = { text = in_folder "text.npy" }, memory = memory }
      local loader = data:loader { threads = 0 }
      assert.same(text:totable(), loader:next().text:totable())
      loader:close()
      local reader = data:reader { "text" }
      local found = reader:read { 4, 0 } -- of three: number 4 is record 1
      reader:close()
      assert.is_nil(found.images)
      assert.same({ text:totable()[2], text:totable()[1] }, found.text:totable())
    end
  end)

  it("tells mistakes", function()
    local function arrays(options)
      return function()
        options.images, options.batch = pg.zeros({ 3, 8, 8, 3 }, "uint8"), 1
        return pg.data.arrays(options):open()
      end
    end
    npy.save(in_folder "short.npy", pg.zeros { 2, 4 })
    expect.fails(arrays { fields = { text = in_folder "none.npy" } }, "none.npy is not there; write { ",
      "one sample's, to plan the recipe without it")
    expect.fails(arrays { fields = { text = in_folder "short.npy" } }, "3 images, but fields.text has 2 samples")
    expect.fails(arrays { fields = { text = { in_folder "short.npy", shape = { 5 } } } }, "float32 [2,4]; expected",
      "float32 [n,5]")
    expect.fails(arrays { fields = { images = pg.zeros { 3 } } }, "expected names other than images")
    expect.fails(arrays { fields = { state = pg.zeros { 3 } } }, "a field is named 'state'")
    expect.fails(arrays { fields = { text = 3 } }, "fields.text is a number; expected a tensor, a .npy file")
    expect.fails(arrays { labels = pg.zeros({ 3 }, "int64") }, "option 'classes' is missing")
    expect.fails(function()
      pg.data.dataset { name = "own", channels = 3, height = 8, width = 8, batch = 1,
        fields = { { name = "text", dtype = "float32", shape = { 4 } } },
        find = function() return 2, { text = { tensor = pg.zeros { 2, 5 } } } end }:open()
    end, "data set 'own': its field 'text' is float32 [2,5]; expected float32 [2,4]")
  end)
end)
