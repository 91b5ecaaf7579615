-- Plans without data or weights, and programs as text.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local text = require "perigee.core.text"
local tiny = require "tests.lua.tiny"

local golden = door.home .. "/tests/lua/golden/"

--- Compares a text with a file; PERIGEE_GOLDEN=write writes the file again.
local function same_as_file(name, actual)
  if os.getenv "PERIGEE_GOLDEN" == "write" then files.write(golden .. name, actual) end
  local expected, line = files.read(golden .. name), 0
  local lines = actual:gmatch "[^\n]*\n"
  for wanted in expected:gmatch "[^\n]*\n" do
    line = line + 1
    assert.equal(wanted, lines(), ("%s, line %d"):format(name, line))
  end
  assert.is_nil(lines())
end

describe("perigee show", function()
  it("prints a program that is read and compared easily", function()
    local p = core.program.new "example"
    local x, target = p:input("x", { 4, 3 }), p:input("target", { 4, 2 })
    local weight, bias = core.tensor.meta({ 2, 3 }, "float32"), core.tensor.meta({ 2 }, "float32")
    local loss = core.ops.mse(core.ops.linear(x, weight, bias), target)
    local wrt = { p:capture(weight), p:capture(bias) }
    local gradients = core.gradient(p, { loss }, { core.ops.full_like(loss, 1) }, wrt)
    local plan = core.plan.build(p, {
      { name = "loss", value = loss }, { name = "d weight", value = gradients[1] },
      { name = "d bias", value = gradients[2] },
    })
    local printed = text.plan(plan, { names = { [weight] = "weight", [bias] = "bias" } })
    same_as_file("example.txt", printed:gsub(", arena [^\n]*$", "") .. "\n")
  end)

  it("prints the same for the same recipe, and all of a stage's forward pass", function()
    local status, first = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --stage free --forward --no-fuse")
    local _, second = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --stage free --forward --no-fuse")
    assert.equal(0, status)
    assert.equal(first, second)
    same_as_file("tiny_free_forward.txt", (first:gsub(", arena [^\n]*\n$", "\n")))
  end)

  it("has the teacher in the stage that needs it, and nothing of it in the other", function()
    local _, align = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --stage align")
    local status, free = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --stage free")
    assert.equal(0, status)
    for _, word in ipairs { "teacher%.", "feature_alignment", "attention_aligned_backward", "projector",
      "weight features" } do
      assert.matches(word, align)
      assert.is_nil(free:match(word))
    end
    assert.matches("gradient student%.blocks%.1%.attention%.qkv%.weight", free)
    assert.is_nil(align:match "gradient teacher")
  end)

  it("prints programs in bfloat16", function()
    local status, output = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --set precision=bf16 --stage align")
    assert.equal(0, status, output)
    assert.matches("bf16%[32,32%] +gradient student", output)
  end)

  it("steers no terminal by a recipe's names, nor does plan", function()
    local path = os.tmpname()
    files.write(path, 'local recipe = require("tests.lua.tiny").recipe()\n'
      .. 'recipe.stages[1].name, recipe.stages[1].losses[1].name = "\\27[2J", "\\27[2J"\nreturn recipe\n')
    for _, verb in ipairs { "show", "plan" } do
      local status, output = tiny.perigee(verb .. " " .. path)
      assert.equal(0, status, output)
      assert.is_nil(output:find("\27", 1, true), output)
      assert.is_truthy(output:find("\\x1B[2J", 1, true), output)
    end
    os.remove(path)
  end)

  it("names a stage that isn't there", function()
    local status, output = tiny.perigee("show " .. tiny.quote(tiny.path) .. " --stage fre")
    assert.equal(1, status)
    assert.matches("has no stage 'fre'; it has align, free", output)
  end)
end)

describe("perigee plan", function()
  local function plan(name, device)
    local status, output = tiny.perigee(("plan recipes/%s.lua --device %s --json"):format(name, device or "h200"))
    assert.equal(0, status, output)
    return json.decode(output)
  end

  for _, file in ipairs(files.list(door.home .. "/recipes")) do
    it("prices " .. file .. " where neither data nor weights are", function()
      local priced = plan(file:match "^(.*)%.lua$")
      for _, stage in ipairs(priced.stages) do
        assert.is_true(stage.parameters.student > 0 and stage.flops > 0 and stage.seconds > 0
          and stage.memory.arena > 0)
        local total = 0
        for _, bytes in pairs(stage.memory) do total = total + bytes end
        assert.equal(total, stage.memory_total)
        assert.equal(stage.parameters.teacher ~= nil, stage.memory.teacher > 0)
      end
    end)
  end

  it("takes seconds of one processor for the largest model", function()
    local recipe = require("perigee.recipe.load").load(door.home .. "/recipes/haste_sit_xl_2.lua",
      { values = {} }).value
    local started = os.clock()
    require("perigee.cost.price").recipe(recipe, { device = "h200" })
    assert.is_true(os.clock() - started < 10)
  end)

  it("chooses the pieces that an accelerator has room for, and shows what else it priced", function()
    local function lines(device, more)
      local status, output = tiny.perigee(("plan recipes/haste_sit_xl_2.lua --device %s %s"):format(device, more or ""))
      assert.equal(0, status, output)
      return output:match "\n(  batch[^\n]*)", output:match "\n(    or[^\n]*)"
    end
    local h200, other = lines "h200"
    assert.matches("256 images in one piece, values kept", h200)
    assert.is_nil(other)
    local h100, too_much = lines "h100"
    assert.matches("256 images in 2 pieces of 128, values kept", h100)
    assert.matches("256 images in one piece, values kept.*; TOO MUCH for the 77%.65 GiB there", too_much)
    assert.matches("256 images in 8 pieces of 32, values kept", (lines("h200", "--set micro=32"))) -- it insists
  end)

  it("has the published figures: parameters, and FLOPs of a step as three forward passes", function()
    local xl = plan "haste_sit_xl_2"
    local align, free = xl.stages[1], xl.stages[2]
    assert.is_true(math.abs(free.parameters.student / 675e6 - 1) < 0.01)
    assert.is_true(math.abs(free.flops_per_image / (6 * 118.6e9) - 1) < 0.02) -- 118.6 GMAC a forward pass
    assert.is_true(math.abs(align.parameters.teacher / 86.58e6 - 1) < 0.01)
    assert.is_nil(free.parameters.teacher)
    -- DINOv2-B at 224: 23.19 GMAC; the projector, 256 tokens an image, trained
    local expected = 2 * 23.19e9 + 6 * 256 * align.parameters.projector
    assert.is_true(math.abs((align.flops_per_image - free.flops_per_image) / expected - 1) < 0.03)
    local b = plan("haste_sit_b_2").stages[2]
    assert.is_true(math.abs(b.flops_per_image / (6 * 23.0e9) - 1) < 0.03)
    assert.is_true(math.abs(b.parameters.student / 130e6 - 1) < 0.01)
  end)

  it("prices a reading of the gradient angle: more than forward passes, less than two backward ones too", function()
    local align, free = unpack(plan("quickstart").stages)
    local probe = align.signals[1]
    assert.equal(1, #align.signals)
    assert.equal(0, #free.signals)
    assert.same({ "gradient_angle" }, probe.names)
    local passes = 64 * 4 -- images, times
    assert.is_true(probe.flops > passes * align.flops_per_image / 3)
    assert.is_true(probe.flops < passes * align.flops_per_image * 5 / 3)
    assert.is_true(probe.seconds > 0 and align.memory.signal > probe.bytes and probe.every == 50)
  end)

  it("prints what a person reads, and knows its devices", function()
    local status, output = tiny.perigee("plan " .. tiny.quote(tiny.path) .. " --device h100")
    assert.equal(0, status)
    assert.matches("tiny: batch 8 %(in pieces of 8%), float32\n  kernels        [^\n]*CUDA's[^\n]*\n  batch          "
      .. "8 images in one piece, values kept for the backward pass: [%d.]+ MiB, [%d%.e%-]+ ms\n\nstage align\n  "
      .. "parameters     student 0%.07 M, ", output)
    assert.matches("stage free\n  parameters     student 0%.07 M, projector %-, teacher %-\n", output)
    assert.matches("step time +[%d%.e%-]+ ms, [%d%.e+]+ images/s %(roofline, H100 SXM%)", output)
    status, output = tiny.perigee "plan recipes/quickstart.lua --device h100"
    assert.equal(0, status)
    assert.matches("\n  gradient_angle [%d%.e%-]+ TFLOP, [%d%.e%-]+ ms a reading %(roofline%); every 50 steps it adds "
      .. "[%d%.]+ %%\n", output)
    local _, here = tiny.perigee("plan " .. tiny.quote(tiny.path) .. " --device cpu --threads 1")
    assert.matches("\n  kernels        this processor's\n  memory here    [^\n]+\n\nstage align\n", here)
    status, output = tiny.perigee("plan " .. tiny.quote(tiny.path) .. " --device b200")
    assert.equal(1, status)
    assert.matches("^perigee: %-%-device b200: expected cpu, cuda, a100, h100 or h200\n$", output)
  end)
end)
