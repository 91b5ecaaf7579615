-- MMDiT against REPA's own code (tests/oracle/README.md, `mmdit`): output, attention alignment on the picture's logits
-- and every gradient; its sizes, its names, captions as conditions.
local core = require "perigee.core"
local message_of = require("tests.lua.expect").message_of
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local program = require "perigee.core.program"
local taps = require "perigee.nn.taps"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor
local in_folder = dofile(require("perigee.core.ffi").home .. "/tests/lua/folder.lua")(before_each, after_each)
local fixture, settings = oracle.load "mmdit"

local function student_of(recompute)
  local student = models.mmdit { width = settings.width, depth = settings.depth, heads = settings.heads, size = 8,
    words = settings.words, recompute = recompute }
  student:materialise { initialise = false }
  weights.load(oracle.path "mmdit.weights", student)
  return student
end

--- Every 37th number of a tensor, as the fixture has it.
local function thinned(t)
  local list, kept = t:reshape({ -1 }):totable(), {}
  for k = 1, #list, 37 do kept[#kept + 1] = list[k] end
  return tensor.tensor(kept, { #kept })
end

describe("MMDiT", function()
  for _, recompute in ipairs { false, true } do
    it("is REPA's, with its losses and gradients" .. (recompute and ", blocks recomputed" or ""), function()
      local student, p, v = student_of(recompute), program.new "mmdit", {}
      local inputs = { x = fixture.x, t = fixture.t, text = fixture.text, velocity = fixture.velocity,
        teacher = fixture.teacher }
      for name, value in pairs(inputs) do v[name] = p:input(name, value.shape, value.dtype) end
      local out, published
      p:trace(function()
        out, published = taps.collect(function() return student(v.x, v.t, v.text) end)
      end)
      local denoise = ops.mse(out, v.velocity)
      local attention = ops.attention_alignment(published["qkv of block 1"], v.teacher,
        { heads = settings.heads, teacher_skip = 0 })
      local outputs = { { name = "out", value = out }, { name = "denoise", value = denoise },
        { name = "attention", value = attention } }
      for k = 1, settings.depth do
        outputs[#outputs + 1] = { name = "tap.block." .. k, value = published["block " .. k] }
      end
      local public, wrt = weights.public_parameters(student, "repa_mmdit"), {}
      for k, entry in ipairs(public) do wrt[k] = p:capture(entry.parameter) end
      local gradients = core.gradient(p, { denoise + attention }, { tensor.tensor(1, {}, "float32") }, wrt)
      for k, entry in ipairs(public) do
        outputs[#outputs + 1] = { name = "gradient." .. entry.name, value = gradients[k] }
      end
      local result = core.executable.compile(p, outputs):run(inputs)
      oracle.near("out", result.out, fixture.out)
      for k = 1, settings.depth do oracle.near("block", result["tap.block." .. k], fixture["tap.block." .. k]) end
      for _, name in ipairs { "denoise", "attention" } do
        oracle.near_number(name, result[name]:item(), fixture[name]:item(), 1e-5)
      end
      local count = 0
      for name in pairs(fixture) do count = count + (name:match "^gradient%." and 1 or 0) end
      assert.equal(count, #public)
      for _, entry in ipairs(public) do
        local name = "gradient." .. entry.name
        oracle.near(name, thinned(result[name]), fixture[name], 2e-5)
      end
    end)
  end

  it("has the published parameters", function()
    local student = models.mmdit()
    local count, names = 0, {}
    for _, entry in ipairs(student:named_parameters()) do count = count + entry.tensor:numel() end
    assert.equal(505070608, count)
    for _, entry in ipairs(weights.public_parameters(student, "repa_mmdit")) do names[entry.name] = entry.shape end
    assert.same({ 1536, 768 }, names["joint_blocks.23.context_block.adaLN_modulation.1.weight"])
    assert.is_nil(names["joint_blocks.23.context_block.attn.proj.weight"])
    assert.same({ 768, 4, 2, 2 }, names["x_embedder.proj.weight"])
    local total = 0
    for _ in pairs(names) do total = total + 1 end
    assert.equal(493 - 1 - 6, total) -- less pos_embed and the projector's six
  end)

  it("begins as PyTorch's layers do, with nothing at zero", function()
    local student = models.mmdit { width = 16, depth = 2, heads = 2, size = 8, words = 3, text_width = 8 }
    student:materialise { seed = 1 }
    for _, entry in ipairs(student:named_parameters()) do
      assert.is_true(ops.max(ops.abs(entry.tensor)):item() > 0, entry.name)
    end
    local weight = student.blocks[1].picture.modulation.weight
    local largest = ops.max(ops.abs(weight)):item()
    assert.is_true(largest <= 1 / 4 and largest > 0.24)
  end)

  it("trains on captions, drops them and is guided by the empty one", function()
    local empty = in_folder "empty.npy"
    pg.save(empty, pg.full({ 3, 8 }, 0.5))
    local student = models.mmdit { width = 16, depth = 2, heads = 2, size = 8, channels = 3, words = 3, text_width = 8,
      empty = empty, drop = 0.5 }
    local recipe = pg.recipe {
      name = "captions", student = student,
      data = pg.data.arrays { images = pg.zeros(4, 8, 8, 3, { dtype = "uint8" }), batch = 2,
        fields = { text = pg.randn(4, 3, 8) } },
      optim = pg.optim.adamw { lr = 1e-3 },
      stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(2) } },
      sample = { count = 2, steps = 2, cfg = 2 },
    }
    local run = require("perigee.train").train(recipe, { quiet = true })
    assert.equal(2, run.step)
    assert.same({ 0.5, 0.5 }, { student.no_text:select(1, 1):totable()[1], student.no_text:select(1, 3):totable()[8] })
    local made = require("perigee.sampling.generate").all(recipe, recipe.sample)
    assert.same({ 2, 8, 8, 3 }, made.shape)
    run:free()
  end)

  describe("on COCO's layout", function()
    --- Two pictures, the first with two captions; picture i's latent has the mean i and deviation 1/2.
    local function folder_of()
      require("perigee.io.files").make_folder(in_folder "train")
      for i = 0, 1 do
        local mean, log_variance = pg.full({ 4, 8, 8 }, i), pg.full({ 4, 8, 8 }, 2 * math.log(0.5))
        pg.save(in_folder(("train/%d.npy"):format(i)), ops.concat({ mean, log_variance }, 1))
        for k = 0, 1 - i do pg.save(in_folder(("train/%d_%d.npy"):format(i, k)), pg.full({ 3, 8 }, 10 * i + k)) end
      end
      return in_folder()
    end
    local function data_of(more)
      local o = { dir = folder_of(), side = 8, words = 3, text_width = 8, images = false, batch = 3, shuffle = false,
        scale = 0.5 }
      for key, value in pairs(more or {}) do o[key] = value end
      return pg.data.coco(o)
    end

    it("has a record for each caption, with its picture's latent", function()
      local data = data_of()
      data:open()
      assert.equal(3, data.count)
      local reader = data:reader { "latents", "text" }
      local batch = reader:read { 0, 1, 2 }
      reader:close()
      local text = batch.text:totable()
      assert.same({ 0, 1, 10 }, { text[1][1][1], text[2][1][1], text[3][1][1] })
      local state = tensor.tensor({ 1, 2, 0 }, "int64")
      local z = data:latents(batch, state, "float64")
      local whole, last = z:narrow(1, 1, 2), z:narrow(1, 3, 1)
      assert.is_true(math.abs(whole:mean():item()) < 0.05 and math.abs(last:mean():item() - 0.5) < 0.05)
      local spread = ops.sqrt(((last - 0.5) * (last - 0.5)):mean()):item()
      assert.is_true(math.abs(spread - 0.25) < 0.03)
    end)

    it("says what is missing", function()
      local data = data_of()
      os.remove(in_folder "train/1.npy")
      assert.matches("train: caption 1_0%.npy has no 1%.npy", message_of(data.open, data))
      data = data_of { words = 4 }
      assert.matches("0_0%.npy: float32 %[3,8%]; expected float32 %[4,8%]", message_of(data.open, data))
    end)
  end)

  it("refuses what it can't be made of or fed with", function()
    assert.matches("mmdit: width 30 does not divide into 4 heads",
      message_of(models.mmdit, { width = 30, heads = 4 }))
    assert.matches("size 9x9 does not divide into patches of 2", message_of(models.mmdit, { size = 9 }))
    assert.matches("text is %[2,5,7%]; expected %[2,words,768%]",
      message_of(student_of(), fixture.x, fixture.t, pg.zeros(2, 5, 7)))
  end)
end)
