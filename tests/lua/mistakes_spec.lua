-- What a user can get wrong about a run, and what the program says: one line that names the place.
local cli = require "perigee.cli"
local door = require "perigee.core.ffi"
local failure = require "perigee.base.failure"
local files = require "perigee.io.files"
local message_of = require("tests.lua.expect").message_of
local mistakes = require "tests.lua.mistakes"
local parameters = require "perigee.stage.parameters"
local pg = require "perigee"
local preview = require "perigee.sampling.preview"
local tiny = require "tests.lua.tiny"
local train = require "perigee.train"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

--- Writes a recipe file and runs a command on it; the message, in which FILE stands for the recipe's path.
local function complaint(text, verb, arguments)
  local path = in_folder "mine.lua"
  files.write(path, text)
  local status, output = tiny.perigee(("%s %s %s"):format(verb or "train", tiny.quote(path),
    arguments or "--runs " .. tiny.quote(in_folder "runs")))
  assert.equal(1, status)
  assert.is_nil(output:find("internal error", 1, true), output)
  assert.is_nil(output:find("stack traceback", 1, true), output)
  return (output:gsub(path:gsub("%p", "%%%0"), "FILE"))
end

describe("a mistake before the first step:", function()
  local path, verb = "mine.lua", require "perigee.cli.train"

  --- Calls a function of the library as the program does: no line of this file leads to it.
  local function by_program(f, ...)
    local results = { coroutine.resume(coroutine.create(f), ...) }
    if not results[1] then error(results[2], 0) end
    return results[2]
  end

  --- The message of what `perigee train` does with a recipe before its first step, or nil. FILE stands for its path.
  local function complaint_of(text)
    files.write(in_folder(path), text)
    local fine, message = pcall(function()
      local recipe = by_program(cli.read, "train", verb, { in_folder(path) }).recipe
      if not recipe then return end
      by_program(preview.check, recipe)
      by_program(parameters.check, recipe)
      by_program(recipe.data.open, recipe.data)
      by_program(recipe.expect_data, recipe)
    end)
    return not fine and failure.text(message):gsub("^perigee: ", ""):gsub(in_folder(path):gsub("%p", "%%%0"), "FILE")
      or nil
  end

  --- The line of a text at which an error should stand.
  local function line_of(text)
    local number, marked, last = 0, nil, nil
    for line in (text .. "\n"):gmatch "(.-)\n" do
      number = number + 1
      if line:match "%-%-!$" then marked = number end
      if line:match "^return pg%.recipe" then last = number end
    end
    return marked or last
  end

  it("there is none in sound recipes", function()
    for _, text in ipairs(mistakes.sound) do assert.is_nil(complaint_of(text)) end
  end)

  for _, kind in ipairs { "recipes", "losses", "models" } do
    for _, row in ipairs(mistakes[kind]) do
      local name, text, expected = unpack(row)
      it(("%s, %s"):format(kind, name), function()
        local message = complaint_of(text) or "no error"
        local place = ("FILE:%d: "):format(line_of(text))
        assert.equal(place, message:sub(1, #place), message)
        assert.is_truthy(message:find(expected, 1, true), message)
        assert.is_nil(message:find "[\n]", message)
        assert.is_nil(message:find("internal error", 1, true), message)
      end)
    end
  end
end)

describe("a recipe with a mistake", function()
  it("is told in one line by the command", function()
    for _, row in ipairs { mistakes.recipes[1], mistakes.losses[1], mistakes.models[1] } do
      local message = complaint(row[2])
      assert.matches("^perigee: FILE:%d+: [^\n]+\n$", message)
      assert.is_truthy(message:find(row[3], 1, true), message)
    end
  end)

  it("has no recipe at the end", function()
    assert.equal("perigee: FILE returns no recipe: its last line should be `return pg.recipe { ... }`\n",
      complaint "local pg = require 'perigee'\n")
  end)

  it("compares symbolic values", function()
    for _, body in ipairs { "value > value * 2", "value == value * 2", "value:item() > 3" } do
      local message = complaint(mistakes.custom(("local value = context:forward().velocity:mean()\n"
        .. "if %s then value = value * 2 end\nreturn value"):format(body)))
      assert.matches("FILE:13: ", message)
      assert.matches("the numbers.*are not there yet; use ops%.where, ops%.less", message)
    end
  end)
end)

describe("a command about a run", function()
  it("names a recipe that isn't there", function()
    local status, output = tiny.perigee("train " .. tiny.quote(in_folder "none.lua"))
    assert.equal(1, status)
    assert.matches("^perigee: cannot read the recipe .*none%.lua: No such file or directory\n$", output)
    status, output = tiny.perigee "train recipes/quikstart.lua"
    assert.equal(1, status)
    assert.equal("perigee: cannot read the recipe recipes/quikstart.lua: No such file or directory; did you mean "
      .. "\"quickstart.lua\"?\n", output)
  end)

  it("asks for CUDA where there is none, in one line", function()
    local status, output = tiny.perigee(("train %s --device cuda --runs %s"):format(tiny.quote(tiny.path),
      tiny.quote(in_folder "runs")))
    assert.equal(1, status)
    assert.matches("^perigee: %-%-device cuda: [^\n]+\n$", output)
  end)

  it("names weights that aren't there", function()
    local command = "train %s --weights /none/teacher.safetensors --runs %s"
    local status, output = tiny.perigee(command:format(tiny.quote(tiny.path),
      tiny.quote(in_folder "runs")))
    assert.equal(1, status)
    assert.matches("^[^\n]*\n?perigee: [^ ]*tiny%.lua:%d+: /none/teacher%.safetensors: weights file not found\n$",
      output)
  end)

  it("names weights that were cut short", function()
    local whole = files.read(door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors")
    files.write(in_folder "cut.safetensors", whole:sub(1, 4096))
    local status, output = tiny.perigee(("train %s --weights %s --runs %s"):format(tiny.quote(tiny.path),
      tiny.quote(in_folder "cut.safetensors"), tiny.quote(in_folder "runs")))
    assert.equal(1, status)
    assert.matches("cut%.safetensors: not a valid safetensors file: ", output)
    assert.is_nil(output:find("internal", 1, true))
  end)

  it("names data that aren't there", function()
    local status, output = tiny.perigee("train recipes/cifar10.lua --data /none/cifar --runs "
      .. tiny.quote(in_folder "runs"))
    assert.equal(1, status)
    assert.matches("/none/cifar", output)
    assert.equal(1, select(2, output:gsub("\n", "\n")), output)
  end)

  it("is given a run that isn't there, or a file that is no checkpoint", function()
    local status, output = tiny.perigee("sample " .. tiny.quote(in_folder "nothing"))
    assert.equal(1, status)
    assert.matches("^perigee: no run or checkpoint at .*nothing\n$", output)
    tiny.perigee(("train %s --steps 2 --runs %s"):format(tiny.quote(tiny.path), tiny.quote(in_folder "runs")))
    local other = in_folder "runs/tiny/checkpoints/other.safetensors"
    files.write(other, files.read(door.home .. "/tests/oracle/fixtures/haste_teacher.weights.safetensors"))
    status, output = tiny.perigee("sample " .. tiny.quote(other))
    assert.equal(1, status)
    assert.matches("other%.safetensors is not a Perigee checkpoint", output)
  end)
end)

describe("student and teacher", function()
  local function with(fields)
    local recipe = tiny.recipe {}
    for key, value in pairs(fields) do recipe[key] = value end
    return message_of(train.train, recipe, { quiet = true })
  end

  it("that have no such blocks or heads are named with both", function()
    local loss, stop = pg.loss, pg.stop
    local function aligned(value)
      local recipe = tiny.recipe {}
      return message_of(function()
        local again = pg.recipe {
          name = "again", student = recipe.student, teacher = recipe.teacher, data = recipe.data,
          stages = {
            { name = "align", losses = { { 1, loss.flow_matching() }, { 1, value } }, finish = stop.at_step(1) },
          },
        }
        again:validate()
      end)
    end
    assert.matches("loss 'features': block 9 of a student with 3 blocks", aligned(loss.feature_alignment { block = 9 }))
    assert.matches("loss 'attention': student block 3 to teacher block 9, of 3 and 4",
      aligned(loss.attention_alignment { student = { 3 }, teacher = { 9 } }))
    assert.matches("loss 'attention': 4 heads, where the student has 4 and the teacher 3",
      aligned(loss.attention_alignment { student = { 3 }, teacher = { 4 }, heads = 4 }))
    assert.matches("loss 'attention': head_map names head 4 of the teacher, which has 3",
      aligned(loss.attention_alignment { student = { 3 }, teacher = { 4 },
        head_map = { student = { 1 }, teacher = { 4 } } }))
  end)

  it("whose grids can't be matched are named: pictures that don't divide into the teacher's patches", function()
    assert.matches("vit: image 20x20 does not divide into patches of 7", message_of(pg.models.vit, {
      depth = 1, width = 8, heads = 1, patch = 7, image = 20 }))
  end)

  it("a teacher that is not an encoder", function()
    local sit = pg.models.sit { depth = 4, width = 32, heads = 2, patch = 4, size = 16, channels = 3, classes = 5 }
    assert.matches("the teacher, a sit, is not an encoder",
      with { teachers = { { name = "teacher", source = sit, model = sit } } })
  end)

  it("data without pixels for the teacher", function()
    local data = pg.data.dataset { name = "latents only", classes = 5, channels = 3, height = 16, width = 16, batch = 8,
      fields = { { name = "latents", dtype = "float32", shape = { 3, 16, 16 } },
        { name = "labels", dtype = "int64", shape = {} } },
      latents = function(_, batch) return batch.latents end,
      find = function()
        return 8, { latents = { tensor = pg.zeros { 8, 3, 16, 16 } }, labels = { tensor = pg.zeros({ 8 }, "int64") } }
      end }
    assert.matches("data set 'latents only' has no pixels for the teacher", with { data = data })
  end)

  it("a student for other pictures than the data's", function()
    assert.matches("the student takes 3 channels of 16x16, the data set 'noise' gives 3 of 32x32",
      with { data = pg.data.dataset { name = "noise", classes = 5, channels = 3, height = 32, width = 32, batch = 8,
        find = function() return 1, {} end } })
  end)
end)

describe("a run that fails", function()
  local checkpoint = require "perigee.record.checkpoint"

  --- Trains with a checkpoint every second step; `harm(run)` is called after each step. The message.
  local function harmed(harm)
    local recipe = tiny.recipe { align = 20, total = 20, checkpoint = 2 }
    recipe.every.sample = 1
    return message_of(train.train, recipe, { folder = in_folder "run", quiet = true, sample = harm })
  end

  --- The newest checkpoint is that of step 4, and the run can continue from it.
  local function stands()
    local steps = checkpoint.list(in_folder "run")
    assert.equal(4, steps[#steps])
    assert.same({}, (function()
      local others = {}
      for _, name in ipairs(files.list(in_folder "run/checkpoints")) do
        if not name:match "^step%-%d+%.safetensors$" then others[#others + 1] = name end
      end
      return others
    end)())
    local run = tiny.train({ align = 20, total = 20, checkpoint = 2 },
      { folder = in_folder "run", steps = 7, resume = true })
    assert.equal(7, run.step)
  end

  it("by a loss that is no number: step and loss are named, the last checkpoint stands", function()
    local message = harmed(function(run)
      if run.step == 4 then
        local p = run.groups[1].parameters
        p:copy_(pg.full(p.shape, 0 / 0))
      end
    end)
    assert.matches("step 5: loss 'denoise' is %-?nan; the run stops and its last checkpoint stands", message)
    stands()
  end)

  it("by a loss that is no number before the first checkpoint", function()
    local recipe = tiny.recipe { checkpoint = 0 }
    recipe.every.sample = 1
    local message = require("tests.lua.expect").message_of(train.train, recipe, { folder = in_folder "none",
      quiet = true, sample = function(run)
        local p = run.groups[1].parameters
        p:copy_(pg.full(p.shape, 0 / 0))
      end })
    assert.matches("step 2: loss 'denoise' is %-?nan; the run stops, and has no checkpoint yet: set every = ", message)
  end)

  it("by a gradient that is no number", function()
    local message = harmed(function(run)
      if run.step == 4 then run.stage.losses.features.weight = 1e60 end
    end)
    assert.matches("step 5: the gradient's norm is [%-%a]+; the run stops and its last checkpoint stands", message)
    stands()
  end)

  it("by a full disk while it writes a checkpoint", function()
    local message = harmed(function(run)
      if run.step == 4 then door.C.pg_writer_fail_after(100000) end
    end)
    door.C.pg_writer_fail_after(-1)
    assert.matches("step%-0000006%.safetensors", message)
    stands()
  end)

  it("by a limit on the size of files", function()
    local arguments = ("train %s --checkpoint 2 --runs %s"):format(tiny.quote(tiny.path), tiny.quote(in_folder "runs"))
    local status, output = tiny.perigee(arguments, "ulimit -f 600 &&")
    assert.equal(1, status)
    assert.matches("perigee: .*step%-0000002%.safetensors[^\n]*: [^\n]*[Ff]ile too large", output)
    assert.same({}, checkpoint.list(in_folder "runs/tiny"))
    assert.same({}, files.list(in_folder "runs/tiny/checkpoints"))
  end)
end)
