local joined = require "tests.lua.joined"
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local message_of = require("tests.lua.expect").message_of
local models = require "perigee.models"
local nn = require "perigee.nn"
local oracle = require "tests.lua.oracle"
local program = require "perigee.core.program"
local taps = require "perigee.nn.taps"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor

local function student_of(settings)
  return models.sit {
    depth = settings.depth, width = settings.width, heads = settings.heads, patch = settings.patch,
    channels = settings.channels, size = { settings.height, settings.columns }, classes = settings.classes,
    time_features = 2 * settings.frequencies, mlp_ratio = settings.ratio,
  }
end

local function teacher_of(settings, options)
  local all = {
    depth = settings.depth, width = settings.width, heads = settings.heads, patch = settings.patch,
    stored = settings.stored_grid, image = settings.image, registers = settings.registers,
    layer_scale = settings.layerscale, mean = settings.statistics[1], std = settings.statistics[2],
    position = { antialias = settings.antialias },
  }
  for key, value in pairs(options or {}) do all[key] = value end
  return models.vit(all)
end

--- [B,N,H,d] as the fixtures have it, [B,H,N,d].
local function heads_first(x) return x:permute({ 1, 3, 2, 4 }):contiguous() end

-- ---- SiT --------------------------------------------------------------------------------------------------------

--- Gradients of Σ velocity·direction with respect to x and then every parameter.
local function student_gradients(student, inputs, direction)
  local p = program.new "gradients"
  local v = {}
  for name, given in pairs(inputs) do v[name] = p:input(name, given.shape, given.dtype) end
  local total = ops.sum(p:trace(student, v.x, v.t, v.y) * direction)
  local wrt, outputs, list = { v.x }, {}, {}
  for k, entry in ipairs(student:named_parameters()) do wrt[k + 1] = p:capture(entry.tensor) end
  local seed = tensor.tensor(1, {}, total.dtype)
  for k, gradient in ipairs(core.gradient(p, { total }, { seed }, wrt)) do
    outputs[k] = { name = tostring(k), value = gradient }
  end
  local out = core.executable.compile(p, outputs):run(inputs)
  for k = 1, #outputs do list[k] = out[tostring(k)] end
  return list
end

describe("SiT", function()
  for _, name in ipairs { "sit_tiny", "sit_odd" } do
    it(name .. " equals the fixture, every tap of it, eagerly and compiled", function()
      local fixture, settings = oracle.load(name)
      local student = student_of(settings)
      student:materialise { initialise = false }
      weights.load(oracle.path(name .. ".weights"), student)
      local function run(x, t, y)
        local velocity, collected = taps.collect(function() return student(x, t, y) end)
        local list = { velocity, collected.embedded, collected.conditioning }
        for k = 1, student.depth do
          list[#list + 1] = taps.read(collected, "block " .. k)
          local q, k_ = taps.read(collected, "queries and keys of block " .. k)
          list[#list + 1], list[#list + 2] = heads_first(q), heads_first(k_)
        end
        return unpack(list)
      end
      local expected = { "out", "tap.embedded", "tap.conditioning" }
      for k = 1, student.depth do
        for _, kind in ipairs { "block", "q", "k" } do expected[#expected + 1] = ("tap.%s.%d"):format(kind, k) end
      end
      local inputs = { fixture.x, fixture.t, fixture.y }
      local compiled = core.compile(run, inputs)
      for way, body in pairs { eager = run, compiled = compiled } do
        local found = { body(unpack(inputs)) }
        assert.equal(#expected, #found)
        for k, what in ipairs(expected) do
          oracle.near(("%s %s %s"):format(name, way, what), found[k], fixture[what])
        end
      end
    end)
  end

  it("runs in bfloat16, positions in float32 included", function()
    local fixture, settings = oracle.load "sit_tiny"
    local student = student_of(settings)
    student:materialise { initialise = false }
    weights.load(oracle.path "sit_tiny.weights", student)
    for _, entry in ipairs(student:named_parameters()) do -- as a trainer shows its working copy
      local working = entry.tensor:to "bfloat16"
      tensor.dematerialise(entry.tensor)
      tensor.materialise(entry.tensor, working)
    end
    local inputs = { fixture.x:to "bfloat16", fixture.t, fixture.y }
    local compiled = core.compile(function(x, t, y) return student(x, t, y) end, inputs)
    oracle.near("eager", student(unpack(inputs)), fixture.out, 2e-2)
    oracle.near("compiled", compiled(unpack(inputs)), fixture.out, 2e-2)
  end)

  it("has gradients that finite differences confirm, also with blocks recomputed", function()
    local function build(recompute)
      local student = models.sit { depth = 2, width = 8, heads = 2, size = { 4, 6 }, channels = 3, classes = 4,
        time_features = 16, recompute = recompute }
      for _, entry in ipairs(student:named_parameters()) do -- zero output layers would hide what lies behind them
        rawset(entry.tensor, "initialise", initialise.normal(0.3))
      end
      student:materialise { seed = 11, dtype = "float64" }
      return student
    end
    local state = tensor.tensor({ 1, 0, 0 }, "int64")
    local function random(shape, purpose)
      return ops.random_normal(shape, { state = state, purpose = purpose, dtype = "float64" })
    end
    local x, direction = random({ 3, 3, 4, 6 }, "x"), random({ 3, 3, 4, 6 }, "direction")
    local t, y = tensor.tensor({ 0.1, 0.5, 0.9 }, "float64"), tensor.tensor({ 0, 4, 2 }, "int64")
    local gradients_of = {}
    for _, recompute in ipairs { false, true } do
      local student = build(recompute)
      local function loss(input) return ops.sum(student(input, t, y) * direction) end
      local gradients = student_gradients(student, { x = x, t = t, y = y }, direction)
      gradients_of[recompute] = gradients
      if not recompute then
        local subjects = { { name = "x", tensor = x } }
        for _, entry in ipairs(student:named_parameters()) do subjects[#subjects + 1] = entry end
        for k, subject in ipairs(subjects) do
          local along = random(subject.tensor.shape, "along " .. subject.name)
          local kept, epsilon = subject.tensor:clone(), 1e-5
          subject.tensor:copy_(kept + along * epsilon)
          local above = loss(x):item()
          subject.tensor:copy_(kept - along * epsilon)
          local below = loss(x):item()
          subject.tensor:copy_(kept)
          local numeric, exact = (above - below) / (2 * epsilon), ops.sum(gradients[k] * along):item()
          local bound = 1e-6 * math.max(math.abs(numeric), 1e-2)
          assert.is_true(math.abs(numeric - exact) < bound, ("%s: %.9g by differences, %.9g by program"):format(
            subject.name, numeric, exact))
        end
      end
    end
    for k, gradient in ipairs(gradients_of[false]) do
      oracle.near("recomputed " .. k, gradients_of[true][k], gradient, 1e-13)
    end
  end)

  it("starts at zero velocity and has the published parameter counts", function()
    local student = models.sit_s_8 { size = 16, classes = 3 }
    student:materialise {}
    local velocity = student(ops.fill({ 2, 4, 16, 16 }, { value = 1, dtype = "float32" }), tensor.tensor { 0, 1 },
      tensor.tensor({ 0, 3 }, "int64"))
    assert.equal(0, ops.sum(velocity * velocity):item())
    local counts = { sit_s_2 = 33, sit_b_2 = 130, sit_l_2 = 458, sit_xl_2 = 675 } -- millions, as DiT's table has them
    for name, millions in pairs(counts) do
      assert.equal(millions, math.floor(models[name]({}):parameter_count() / 1e6 + 0.5))
    end
  end)

  it("is traced and planned without memory", function()
    local before = tonumber(door.C.pg_memory_now(0, -1))
    local student = models.sit_xl_2 {}
    local p = program.new "plan"
    local x, t, y = p:input("x", { 4, 4, 32, 32 }), p:input("t", { 4 }), p:input("y", { 4 }, "int64")
    local velocity = p:trace(student, x, t, y)
    local plan = require("perigee.core.plan").build(p, { { name = "velocity", value = velocity } })
    assert.is_true(tonumber(door.C.pg_memory_now(0, -1)) - before < 2 ^ 20)
    local forward = plan:cost().flops / 4
    assert.is_true(math.abs(forward / (2 * 118.6e9) - 1) < 0.01, ("%.4g FLOPs an image"):format(forward))
  end)

  it("refuses what it can't be made of or fed with", function()
    local function refused(text, make, options)
      local message = message_of(make, options)
      assert.truthy(message:find(text, 1, true), message)
    end
    refused("width 30 does not divide into 4 heads", models.sit, { depth = 2, width = 30, heads = 4 })
    refused("size 8x9 does not divide", models.sit, { depth = 2, width = 32, heads = 4, size = { 8, 9 } })
    refused('did you mean "patch"?', models.sit, { depth = 2, width = 32, heads = 4, pacth = 4 })
    refused("option 'depth' is a string", models.sit, { depth = "two", width = 32, heads = 4 })
    refused("unknown model 'sit_s_3'; expected one of sit, sit_b_2, ", function() return models.sit_s_3 end)
    refused(", clip, deit, dino, dinov2, dinov3, ", function() return models.sot_s_2 end)
    refused(", vit, or a name that begins so; did you mean \"sit_s_2\"?", function() return models.sot_s_2 end)
    refused('did you mean "sit_b_2"?', function() return models.sit_b2 end)
    refused("unknown model 'vgg'", function() return models.vgg end)
    refused("unknown option 'with_registers'", models.vit_tiny_patch16_224, { with_registers = true })
    refused("sit_b_2: the name fixes 'depth' to 12", models.sit_b_2, { depth = 3 })
    local student = models.sit { depth = 1, width = 16, heads = 2, size = 8 }
    local p = program.new "wrong"
    local x, t, y = p:input("x", { 2, 4, 8, 9 }), p:input("t", { 2 }), p:input("y", { 2 }, "int64")
    assert.truthy(message_of(student, x, t, y):find("x is [2,4,8,9], not [B,4,8,8]", 1, true))
    assert.truthy(message_of(student, p:input("x2", { 3, 4, 8, 8 }), t, p:input("y2", { 3 }, "int64"))
      :find("t is [2], not [3], one for each sample", 1, true))
  end)
end)

-- ---- ViT --------------------------------------------------------------------------------------------------------

describe("ViT", function()
  it("vit_dinov2_tiny equals the fixture: preprocessing, blocks, queries, keys, logits, tokens", function()
    local fixture, settings = oracle.load "vit_dinov2_tiny"
    local teacher = teacher_of(settings, { weights = oracle.path "vit_dinov2_tiny.weights" })
    teacher:load {}
    oracle.near("preprocessed", teacher:preprocess(fixture.images), fixture.preprocessed)
    local function run(images)
      local patches, extra, collected = taps.collect(function()
        return teacher:features(images, { layers = { 1, 3 }, logits = { 1, 2, 3 }, class_token = true })
      end)
      local list = { patches, extra.class_token }
      for k = 1, 3 do list[#list + 1] = extra.logits[k] end
      for k = 1, 3 do
        list[#list + 1] = collected["block " .. k]
        local qkv = collected["qkv of block " .. k]
        local q, key = taps.queries_and_keys(qkv)
        local count = qkv.shape[2] - teacher.prefix
        list[#list + 1] = heads_first(q:narrow(2, teacher.prefix + 1, count))
        list[#list + 1] = heads_first(key:narrow(2, teacher.prefix + 1, count))
      end
      return unpack(list)
    end
    local names = { "patches", "class", "logits.1", "logits.2", "logits.3" }
    for k = 1, 3 do
      for _, kind in ipairs { "block.", "q.", "k." } do names[#names + 1] = kind .. k end
    end
    for way, body in pairs { eager = run, compiled = core.compile(run, { fixture.images }) } do
      local found = { body(fixture.images) }
      for k, name in ipairs(names) do oracle.near(way .. " " .. name, found[k], fixture[name]) end
    end
    local _, extra = teacher:features(fixture.images, { layers = { 2 } })
    assert.same({ 2, 19, 3, 2, 16 }, extra.qkv[2].shape)
    assert.is_nil(extra.class_token)
  end)

  it("haste_teacher equals the fixture", function()
    local fixture, settings = oracle.load "haste_step"
    local teacher = teacher_of(settings.teacher, { weights = oracle.path "haste_teacher.weights" })
    teacher:load { purpose = "teacher" }
    local patches, extra = teacher:features(fixture.images, { logits = { 3, 4 }, grid = { 4, 4 } })
    oracle.near("patches", patches, fixture["teacher.patches"])
    oracle.near("logits.3", extra.logits[3], fixture["teacher.logits.3"])
    oracle.near("logits.4", extra.logits[4], fixture["teacher.logits.4"])
  end)

  it("takes the position grid of its weights file, and the student's grid for its own", function()
    local _, settings = oracle.load "vit_dinov2_tiny"
    local teacher = teacher_of(settings, { weights = oracle.path "vit_dinov2_tiny.weights", stored = 9 })
    assert.same({ 4, 4 }, teacher:grid_for { 3, 5 })
    teacher:load {}
    assert.same({ 6, 6 }, teacher.stored)
    assert.same({ 1, 37, 32 }, teacher.position.shape)
    local named = models.vit_tiny_patch16_224 {}
    assert.same({ 3, 5 }, named:grid_for { 3, 5 })
    assert.same({ 48, 80 }, named:grid_input { 3, 5 })
    assert.same({ 14, 14 }, named.grid)
    local base = models.dinov2_vit_b_14 { image = 224, with_registers = true }
    assert.same({ 16, 16 }, base:grid_for { 8, 8 })
    assert.equal(5, base.prefix)
    assert.same({ 37, 37 }, base.stored)
  end)

  local real = door.home .. "/../shared/data/vit-tiny/vit_tiny_patch16_224.safetensors"
  local handle = io.open(real)
  if handle then handle:close() end
  local try = handle and it or pending
  try("vit_tiny_patch16_224 equals the fixture at its own and at another grid", function()
    local fixture = oracle.load "vit_tiny_real"
    local teacher = models.vit_tiny_patch16_224 { weights = real, classes = 1000 }
    teacher:load {}
    for _, size in ipairs { 224, 256 } do
      local function near(name, actual) oracle.near(size .. "." .. name, actual, fixture[size .. "." .. name]) end
      local patches, extra = teacher:features(fixture.images, { class_token = true, logits = { 1, 12 }, input = size })
      near("class", extra.class_token)
      local grid = size / 16
      near("mean_patch", ops.sum(patches, { 2 }) * (1 / grid ^ 2))
      local function every(x, dim, step) -- entries 1, 1 + step, ... of a dimension
        local parts = {}
        for k = 1, x.shape[dim], step do parts[#parts + 1] = x:narrow(dim, k, 1):contiguous() end
        return parts[2] and ops.concat(parts, dim) or parts[1]
      end
      near("patches_every_25", every(patches, 2, 25))
      for _, layer in ipairs { 1, 12 } do
        near("attention_logits." .. layer, every(every(extra.logits[layer], 3, 50), 4, 9))
      end
      local classes = teacher:classify(fixture.images, size)
      near("logits_every_7", every(classes, 2, 7))
      local rows = teacher:preprocess(fixture.images, size)
      near("preprocessed_rows_0_100", every(rows:narrow(3, 1, 101), 3, 100))
    end
  end)

  it("computes nothing that nobody asked for", function()
    local teacher = models.vit { depth = 4, width = 16, heads = 2, patch = 4, image = 16, classes = 10 }
    local function calls(body)
      local p = program.new "count"
      local value = p:trace(body, p:input("images", { 2, 3, 16, 16 }))
      local count = 0
      for _, call in ipairs(require("perigee.core.plan").build(p, { { name = "out", value = value } }).calls) do
        if call.node.definition.name == "attention" then count = count + 1 end
      end
      return count
    end
    assert.equal(4, calls(function(images) return (teacher:features(images)) end))
    assert.equal(1, calls(function(images)
      return select(2, teacher:features(images, { layers = { 2 } })).qkv[2]
    end))
    assert.equal(4, calls(function(images) return teacher:classify(images) end))
  end)

  it("loads timm's form of DINOv2 with registers, whose class token has its position in it", function()
    local safetensors, _, settings = require "perigee.io.safetensors", oracle.load "vit_dinov2_tiny"
    local original, timm = oracle.path "vit_dinov2_tiny.weights", os.tmpname()
    local tensors = safetensors.load(original)
    local position = tensors.pos_embed
    assert.same({ 1, 37, 32 }, position.shape)
    tensors.cls_token = tensors.cls_token + position:narrow(2, 1, 1)
    tensors.pos_embed = position:narrow(2, 2, 36):contiguous()
    tensors.reg_token, tensors.register_tokens, tensors.mask_token = tensors.register_tokens, nil, nil
    safetensors.save(timm, tensors)
    local images = ops.random_uniform({ 2, 3, 28, 28 },
      { state = tensor.tensor({ 1, 0, 0 }, "int64"), purpose = "images", dtype = "float32" })
    local function everything(path, options)
      local teacher = teacher_of(settings, options)
      teacher.weights = path
      teacher:load {}
      local tokens, extra = teacher:features(images, { layers = { 1, 3 }, class_token = true })
      return { tokens:totable(), extra.class_token:totable(), extra.qkv[1]:totable(), extra.qkv[3]:totable() }
    end
    local expected = everything(original)
    assert.same(expected, everything(timm)) -- exactly
    assert.same(expected, everything(timm, { stored = 4 })) -- the grid is the file's
    tensors.pos_embed = position:narrow(2, 2, 34):contiguous()
    safetensors.save(timm, tensors)
    assert.matches("pos_embed [1,34,32] is not a square grid, with or without a class token",
      message_of(everything, timm), 1, true)
    os.remove(timm)
  end)

  it("learns as a classifier: gradients reach every parameter", function()
    local teacher = models.vit { depth = 1, width = 8, heads = 2, patch = 4, image = 8, classes = 3, registers = 1,
      layer_scale = true }
    teacher:materialise { seed = 4, dtype = "float64" }
    local also = {}
    for k, entry in ipairs(teacher:named_parameters()) do also[k] = entry.tensor end
    local state = tensor.tensor({ 1, 0, 0 }, "int64")
    local images = ops.random_uniform({ 2, 3, 8, 8 }, { state = state, purpose = "images", dtype = "float64" })
    local direction = tensor.tensor({ { 1, -2, 0.5 }, { 0.3, 1, -1 } }, "float64")
    local function loss(x) return ops.sum(teacher:classify(x) * direction) end
    local gradients = core.grad(loss, { images }, { also = also })
    for k, entry in ipairs(teacher:named_parameters()) do
      assert.is_true(ops.sum(gradients[k + 1] * gradients[k + 1]):item() > 0, entry.name .. " has no gradient")
    end
  end)

  it("says which file is missing, and only when it is needed", function()
    local teacher = models.dinov2_vit_b_14 { weights = "weights/nowhere.safetensors", image = 224 }
    local p = program.new "plan"
    local images = p:input("images", { 2, 3, 64, 64 })
    assert.same({ 2, 256, 768 }, p:trace(teacher.features, teacher, images).shape)
    local message = message_of(teacher.load, teacher, {})
    assert.truthy(message:find("weights/nowhere.safetensors: weights file not found", 1, true), message)
    message = message_of(function() models.vit_tiny_patch16_224({}):load {} end)
    assert.truthy(message:find("no weights to load", 1, true), message)
    message = message_of(teacher.features, teacher, { images = require("perigee").zeros { 1, 3, 64, 64 } })
    assert.truthy(message:find("expected pictures [B,3,H,W] in [0,1], got a table", 1, true), message)
  end)
end)

-- ---- names ------------------------------------------------------------------------------------------------------

local function manifest(name)
  local shapes = {}
  for line in io.lines(oracle.folder .. name) do
    local key, shape = line:match "^([^#\t]+)\t(%S+)$"
    if key then
      shapes[key] = {}
      for size in shape:gmatch "%d+" do table.insert(shapes[key], tonumber(size)) end
    end
  end
  return shapes
end

describe("public names", function()
  for file, make in pairs { ["sit_xl_2.names"] = models.sit_xl_2, ["sit_b_2.names"] = models.sit_b_2 } do
    it(file .. " map to parameters of the same shapes and back, all of them", function()
      local before = tonumber(door.C.pg_memory_now(0, -1))
      local student = make {}
      local group = joined {
        student = student, projectors = { nn.projector { width = student.width, hidden = 2048, out = 768 } },
      }
      local expected = manifest(file)
      assert.same(expected.pos_embed, student.position.shape)
      expected.pos_embed = nil
      for _, entry in ipairs(weights.public_parameters(group, "repa", "student.")) do
        assert.same(expected[entry.name], entry.shape)
        expected[entry.name] = nil
        local own = weights.own_name("repa", entry.name)
        assert.equal(entry.own_name:gsub("^student%.", ""), own)
      end
      assert.same({}, expected)
      assert.is_true(tonumber(door.C.pg_memory_now(0, -1)) <= before)
    end)
  end

  it("know DINOv2's giant with SwiGLU", function()
    local list = {}
    for _, entry in ipairs(weights.public_parameters(models.dinov2_vit_g_14 {}, "dinov2_swiglu")) do
      list[entry.name] = entry.shape
    end
    assert.same({ 8192, 1536 }, list["blocks.39.mlp.w12.weight"])
    assert.same({ 1536, 4096 }, list["blocks.39.mlp.w3.weight"])
    assert.same({ 1536 }, list["blocks.0.ls1.gamma"])
    assert.same({ 1, 1370, 1536 }, list.pos_embed)
    assert.same({ 1536, 3, 14, 14 }, list["patch_embed.proj.weight"])
  end)

  it("write a file that loads again, equal in every tensor to the one read", function()
    local _, settings = oracle.load "sit_odd"
    local student = student_of(settings)
    student:materialise { initialise = false }
    weights.load(oracle.path "sit_odd.weights", student)
    local path = os.tmpname()
    weights.save(path, student, { names = "repa" })
    local original, copy = oracle.load "sit_odd.weights", require("perigee.io.safetensors").load(path)
    for name, t in pairs(original) do oracle.near(name, copy[name], t, name == "pos_embed" and 1e-7 or 0) end
    local again = student_of(settings)
    again:materialise { initialise = false, dtype = "float64" }
    weights.load(path, again)
    os.remove(path)
  end)

  it("report what is missing, unexpected or of another shape, with file and tensor", function()
    local _, settings = oracle.load "sit_tiny"
    local file = oracle.path "sit_tiny.weights"
    local function load(change, options)
      for key, value in pairs(change) do settings[key] = value end
      local student = student_of(settings)
      student:materialise { initialise = false }
      return message_of(weights.load, file, student, options)
    end
    local message = load { classes = 11 }
    assert.truthy(message:find("sit_tiny.weights.safetensors: tensor 'y_embedder.embedding_table.weight' is [11,32]; "
      .. "the model's label_embedding.table needs [12,32]", 1, true), message)
    message = load { classes = 10, depth = 5 }
    assert.truthy(message:find("tensor 'blocks.4.attn.proj.bias' is missing", 1, true), message)
    message = load { depth = 3 }
    assert.truthy(message:find("belongs to nothing in the model", 1, true), message)
    assert.truthy(message:find("tensor 'blocks.3.", 1, true), message)
    message = load { depth = 4, height = 16 }
    assert.truthy(message:find("tensor 'pos_embed' is [1,16,32]; the model's, which is fixed, is [1,32,32]", 1, true),
      message)
    message = load({ height = 8 }, { prefix = "ema." })
    assert.truthy(message:find("tensor 'ema.blocks.0.attn.proj.bias' is missing", 1, true), message)
  end)
end)
