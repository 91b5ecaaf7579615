-- What a user can get wrong about a run, and what the program says: one line that names the place.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
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

local head = [[
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop
local denoise = loss.flow_matching {}
local o = {
  name = "mine",
  student = pg.models.sit { depth = 2, width = 32, heads = 2, patch = 8, size = 32, channels = 3, classes = 8 },
  data = pg.data.shapes { batch = 4, count = 16 },
  stages = { { name = "train", losses = { { 1, denoise } }, finish = stop.at_step(2) } },
}
]]

local odd = [[
local Odd = pg.nn.class "odd"
function Odd:build(outputs)
  self.channels, self.size, self.classes = 3, { 32, 32 }, 8
  self.map = pg.nn.conv2d(3, outputs, 1)
end
]]

describe("a recipe with a mistake", function()
  local cases = {
    { "a syntax error", "local x = = 3\n", "perigee: FILE:1: unexpected symbol near '='" },
    { "an undefined global", head .. "o.ema = decay\nreturn pg.recipe(o)\n",
      'perigee: FILE:10: undefined variable "decay"' },
    { "an unknown key", head .. "o.stdent = 3\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: unknown option 'stdent'.*student" },
    { "a wrong type", head .. "o.seed = 'many'\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: option 'seed' is a string %(many%); expected natural" },
    { "a fraction where a count is meant", head .. "o.keep = 0\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: option 'keep' is a number %(0%); expected count" },
    { "an optimiser's settings without the optimiser", head .. "o.optim = { lr = 1e-3 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: optim is a table; expected an optimiser, such as pg.optim.adamw { lr = 1e%-4 }" },
    { "an EMA out of range", head .. "o.ema = 1.5\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: ema is 1.5; expected 0 <= ema < 1" },
    { "a sampler that there isn't", head .. "o.sample = { sampler = 'huen' }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: unknown sampler 'huen'; expected one of dopri5, euler, heun, sde; did you mean \"heun\"%?" },
    { "guidance of less than nothing", head .. "o.sample = { cfg = -1 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: option 'cfg' is a number %(%-1%); expected a number from 0" },
    { "guidance without end", head .. "o.sample = { cfg = 1 / 0 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: option 'cfg' is a number %(inf%); expected a number from 0" },
    { "no steps", head .. "o.sample = { steps = 0 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: option 'steps' is a number %(0%); expected count" },
    { "an interval from high to low", head .. "o.sample = { interval = { 0.9, 0.1 } }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: interval is { 0.9, 0.1 }; expected { low, high } with low <= high" },
    { "an interval of NaN", head .. "o.sample = { interval = { 0, 0 / 0 } }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: option 'interval' is a table .*; expected 2 numbers from 0 to 1" },
    { "guidance by a null label that is never trained", head
      .. "o.student = pg.models.sit { depth = 1, width = 32, heads = 2, channels = 3, drop_label = 0 }\n"
      .. "o.sample = { cfg = 2 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:12: recipe: sample: cfg = 2, but the student's drop_label is 0, .* use drop_label = 0.1" },
    { "a label that the student doesn't know", head .. "o.sample = { labels = { 7, 8 } }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: labels%[2%] is 8; expected a class from 0 to 7" },
    { "labels of an unknown kind", head .. "o.sample = { labels = 'balnced' }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: labels is 'balnced'; .*; did you mean \"balanced\"%?" },
    { "a sampler's option for another", head .. "o.sample = { rtol = 1e-3 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: 'rtol' is an option of dopri5; euler has steps" },
    { "an unknown option of sampling", head .. "o.sample = { stesp = 10 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: sample: unknown option 'stesp'; did you mean \"steps\"%?" },
    { "a student that trains and cannot be sampled, before the first step", head .. odd
      .. "function Odd:drop_labels(y) self.labels = y return y end\n"
      .. "function Odd:forward(x, t, y) return self.map(x) * self.labels:to('float32'):reshape { 4, 1, 1, 1 } end\n"
      .. "o.student = Odd(3)\nreturn pg.recipe(o)\n", "perigee: FILE:16: attempt to index field 'labels'" },
    { "a student that returns something else, before the first step", head .. odd
      .. "function Odd:forward(x) return self.map(x) end\no.student = Odd(1)\nreturn pg.recipe(o)\n",
      "perigee: the student returns .*64,1,32,32.* for x %[64,3,32,32%]; expected a velocity of x's shape" },
    { "no stage", head .. "o.stages = {}\nreturn pg.recipe(o)\n", "perigee: FILE:11: recipe: stages lists no stage" },
    { "a stage without losses", head .. "o.stages[1].losses = {}\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train' has no losses" },
    { "a stage without an end", head .. "o.stages[1].finish = nil\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train': 'finish' is missing; say when the stage ends" },
    { "an end that is none", head .. "o.stages[1].finish = { 10 }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train': finish is not a stop" },
    { "a loss without its weight", head .. "o.stages[1].losses = { denoise }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train': losses%[1%] is not a pair { weight, loss }" },
    { "two stages of one name", head .. "o.stages[2] = o.stages[1]\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: two stages are named 'train'" },
    { "two losses of one name", head
      .. "table.insert(o.stages[1].losses, { 1, loss.flow_matching {} })\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train': two losses are named 'denoise'; give one another name" },
    { "two losses of one name in two stages",
      head .. "o.stages[2] = { name = 'free', losses = { { 1, loss.flow_matching { path = 'cosine' } } }, finish = "
        .. "stop.at_step(3) }\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: two different losses are named 'denoise' %(stage 'free'%); give one another name" },
    { "a teacher's loss without a teacher",
      head .. "table.insert(o.stages[1].losses, { 1, loss.feature_alignment { block = 1 } })\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: stage 'train' has a loss that needs a teacher, and the recipe names none" },
    { "pieces that don't divide the batch", head .. "o.micro = 3\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: micro = 3 does not divide batch = 4" },
    { "a precision that there isn't", head .. "o.precision = 'fp8'\nreturn pg.recipe(o)\n",
      "perigee: FILE:11: recipe: unknown precision 'fp8'; expected float32, bf16 or float64" },
    { "an option of a loss", "local pg = require 'perigee'\nlocal x = pg.loss.flow_matching { pth = 'linear' }\n",
      "perigee: FILE:2: loss.flow_matching: unknown option 'pth'.*path" },
    { "a path that there isn't", "local pg = require 'perigee'\nlocal x = pg.loss.flow_matching { path = 'curved' }\n",
      "perigee: FILE:2: loss.flow_matching: option 'path' is curved; expected one of linear, cosine" },
    { "attention blocks that don't pair",
      "local pg = require 'perigee'\nlocal x = pg.loss.attention_alignment { student = { 1, 2 }, teacher = { 1 } }\n",
      "perigee: FILE:2: loss 'attention': 2 student blocks and 1 teacher blocks; they go in pairs" },
    { "no recipe at the end", head,
      "perigee: FILE returns no recipe: its last line should be `return pg.recipe { ... }`" },
  }
  for _, case in ipairs(cases) do
    it("has " .. case[1], function()
      local message = complaint(case[2])
      assert.matches("^" .. case[3], message)
      assert.equal(1, select(2, message:gsub("\n", "\n")), message)
    end)
  end

  it("compares a symbolic value: told at the recipe's own line", function()
    local custom = "local mine = loss.custom { name = 'mine', compute = function(_, context)\n"
      .. "  local value = context:forward().velocity:mean()\n%s\n  return value\nend }\n"
      .. "o.stages[1].losses[2] = { 1, mine }\nreturn pg.recipe(o)\n"
    for _, body in ipairs {
      "  if value < 3 then value = value * 2 end", "  if value > value * 2 then value = value * 2 end",
      "  if value == value * 2 then value = value * 2 end", "  if value:item() > 3 then value = value * 2 end",
    } do
      local message = complaint(head .. custom:format(body))
      assert.matches("FILE:12: ", message)
      assert.matches("the numbers.*are not there yet; use ops%.where, ops%.less", message)
    end
  end)

  it("has a loss that returns no number", function()
    local custom = "local mine = loss.custom { name = 'mine', compute = function(_, context)\n  return %s\nend }\n"
      .. "o.stages[1].losses[2] = { 1, mine }\nreturn pg.recipe(o)\n"
    assert.matches("loss 'mine' returns nil; expected one number that depends on the batch",
      complaint(head .. custom:format "nil"))
    assert.matches("loss 'mine' returns symbolic float32 %[4,3,32,32%].*; expected one number",
      complaint(head .. custom:format "context:forward().velocity"))
  end)

  it("misspells a global in a loss: told at its line when it is traced", function()
    local message = complaint(head .. "local mine = loss.custom { name = 'mine', compute = function(_, context)\n"
      .. "  return contxt:forward().velocity:mean()\nend }\no.stages[1].losses[2] = { 1, mine }\nreturn pg.recipe(o)\n")
    assert.matches('^perigee: FILE:11: undefined variable "contxt"', message)
  end)

  it("names a tap that isn't there", function()
    local message = complaint(head .. "local mine = loss.custom { name = 'mine', compute = function(_, context)\n"
      .. "  return context:tap('blok 1'):mean()\nend }\no.stages[1].losses[2] = { 1, mine }\nreturn pg.recipe(o)\n")
    assert.matches("^perigee: FILE:11: the student publishes no tap 'blok 1'; it has block 1, block 2", message)
  end)
end)

describe("a command about a run", function()
  it("names a recipe that isn't there", function()
    local status, output = tiny.perigee("train " .. tiny.quote(in_folder "none.lua"))
    assert.equal(1, status)
    assert.matches("^perigee: cannot read the recipe .*none%.lua: No such file or directory\n$", output)
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
    assert.matches("^perigee: /none/teacher%.safetensors: weights file not found\n$", output)
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
    assert.matches("the teacher, a sit, is not an encoder", with { teacher = pg.models.sit {
      depth = 4, width = 32, heads = 2, patch = 4, size = 16, channels = 3, classes = 5 } })
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
