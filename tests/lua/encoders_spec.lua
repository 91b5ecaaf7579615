-- Encoders of other kinds than DINOv2's: held against transformers' and timm's (tests/oracle/build_encoders.py), from
-- weights under each program's names.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local rotary = require "perigee.nn.rotary"
local safetensors = require "perigee.io.safetensors"
local tables = require "perigee.base.tables"
local taps = require "perigee.nn.taps"
local weights = require "perigee.io.weights"
local weights_kind = require "perigee.io.weights_kind"

local ops, tensor = core.ops, core.tensor
local fails = expect.fails
local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)
local CLIP = { mean = { 0.48145466, 0.4578275, 0.40821073 }, std = { 0.26862954, 0.26130258, 0.27577711 } }
local IMAGENET = { mean = { 0.485, 0.456, 0.406 }, std = { 0.229, 0.224, 0.225 } }

--- The vit of a fixture with some options more.
local function encoder(name, options, file)
  local _, settings = oracle.load(name)
  return models.vit(tables.merged({
    width = 24, heads = 2, depth = 2, patch = 4, image = settings.image, registers = settings.registers,
    weights = file or oracle.path(name .. ".weights"),
  }, options))
end

--- Attention maps [B,H,N,N] of a packed qkv.
local function map_of(qkv)
  local q, k = taps.queries_and_keys(qkv)
  local logits = ops.matmul(q:permute { 1, 3, 2, 4 }, k:permute { 1, 3, 4, 2 }) * (1 / math.sqrt(q.shape[4]))
  return ops.softmax(logits, -1)
end

--- Everything that a fixture has, computed by a model: eagerly, and as one program.
local function check(name, model)
  local fixture = oracle.load(name)
  model:load {}
  local names = {}
  for key in pairs(fixture) do names[#names + 1] = key ~= "images" and key or nil end
  local function run(images)
    local list = {}
    local patches, extra, collected = taps.collect(model.features, model, images,
      { class_token = fixture["class"] ~= nil })
    for k, key in ipairs(names) do
      local block = key:match "^attention%.(%d+)$"
      if block then list[k] = map_of(taps.read(collected, "qkv of block " .. block))
      elseif key == "patches" then list[k] = patches
      elseif key == "class" then list[k] = extra.class_token
      else list[k] = taps.read(collected, (key:gsub("%.", " "))) end
    end
    return unpack(list)
  end
  for way, body in pairs { eager = run, compiled = core.compile(run, { fixture.images }) } do
    local found = { body(fixture.images) }
    for k, key in ipairs(names) do oracle.near(("%s, %s: %s"):format(name, way, key), found[k], fixture[key], 1e-5) end
  end
end

local rotary_position = { kind = "rotary" }
local dinov3 = tables.merged(IMAGENET,
  { layer_scale = true, position = rotary_position, resize = { mode = "bilinear", antialias = true } })
local clip = tables.merged(CLIP, { pre_norm = true, final_norm = false, patch_bias = false, gelu = "quick" })
local siglip = { class_token = false, gelu = "tanh", resize = { mode = "bilinear" } }

--- Fixture, table of names that its weights are recognised by, options of the vit.
local ENCODERS = {
  { "encoder_dinov3", "dinov3_hf", dinov3 },
  { "encoder_dinov3_swiglu", "dinov3_swiglu_hf", tables.merged(dinov3, { swiglu = true, mlp_ratio = 6 }) },
  { "encoder_clip", "clip_hf", clip },
  { "encoder_siglip", "siglip_hf", siglip },
  { "encoder_ijepa", "vit_no_class_hf", tables.merged(IMAGENET, { class_token = false }) },
  { "encoder_vit", "vit_hf", {} },
  { "encoder_mae", "vit_hf", tables.merged(IMAGENET, { final_norm = false }) },
  { "encoder_deit", "timm", IMAGENET },
  { "encoder_moco", "timm", tables.merged(IMAGENET, { names = "moco_v3", position = { kind = "sincos" } }) },
  { "encoder_timm_clip", "timm", tables.merged(CLIP, { pre_norm = true, gelu = "quick", patch_bias = false }) },
  { "encoder_timm_no_class", "timm_no_class", siglip },
}

describe("the vision transformer", function()
  for _, entry in ipairs(ENCODERS) do
    local name, names, options = unpack(entry)
    it(("equals %s, its weights known as %s"):format(name, names), function()
      assert.equal(names, weights_kind.expect(weights.open(oracle.path(name .. ".weights")), "vit").names)
      check(name, encoder(name, options))
    end)
  end

  it("takes its epsilon from the kind of its weights, unless the option says another", function()
    local function epsilon(options)
      local model = encoder("encoder_vit", options)
      model:load {}
      return model.blocks[2].norm2.epsilon, model.norm.epsilon
    end
    assert.same({ 1e-12, 1e-12 }, { epsilon {} })
    assert.same({ 1e-3, 1e-3 }, { epsilon { epsilon = 1e-3 } })
  end)

  it("has MoCo's fixed positions, and says where a file has others", function()
    local file = safetensors.load(oracle.path "encoder_moco.weights")
    local options = { names = "moco_v3", position = { kind = "sincos" } }
    local model = encoder("encoder_moco", options)
    model:load {}
    oracle.near("positions", model.position, file.pos_embed, 1e-6)
    file.pos_embed = file.pos_embed:transpose(2, 3):reshape { 1, 17, 24 }
    safetensors.save(in_folder "other.safetensors", file)
    fails(function() encoder("encoder_moco", options, in_folder "other.safetensors"):load {} end,
      "tensor 'pos_embed' has", "where the model has the fixed number")
  end)
end)

-- ---- the same weights under the names of their authors ------------------------------------------------------------

--- A file's tensors under other names; queries, keys and values joined.
local function renamed(name, pairs_of)
  local given, made = safetensors.load(oracle.path(name .. ".weights")), {}
  for key, t in pairs(given) do
    for _, pair in ipairs(pairs_of) do
      local new, count = key:gsub(pair[1], pair[2])
      if count == 1 then made[new] = t break end
    end
  end
  return given, made
end

describe("weights as their authors name them", function()
  it("are DINOv3's, with a bias of the keys that counts for nothing", function()
    for _, swiglu in ipairs { false, true } do
      local name = swiglu and "encoder_dinov3_swiglu" or "encoder_dinov3"
      local given, made = renamed(name, {
        { "^embeddings%.cls_token$", "cls_token" }, { "^embeddings%.mask_token$", "mask_token" },
        { "^embeddings%.register_tokens$", "storage_tokens" },
        { "^embeddings%.patch_embeddings%.(%w+)$", "patch_embed.proj.%1" },
        { "^layer%.(%d+)%.(norm%d.*)$", "blocks.%1.%2" },
        { "^layer%.(%d+)%.attention%.o_proj(.*)$", "blocks.%1.attn.proj%2" },
        { "^layer%.(%d+)%.layer_scale(%d)%.lambda1$", "blocks.%1.ls%2.gamma" },
        { "^layer%.(%d+)%.mlp%.gate_proj(.*)$", "blocks.%1.mlp.w1%2" },
        { "^layer%.(%d+)%.mlp%.up_proj(.*)$", "blocks.%1.mlp." .. (swiglu and "w2" or "fc1") .. "%2" },
        { "^layer%.(%d+)%.mlp%.down_proj(.*)$", "blocks.%1.mlp." .. (swiglu and "w3" or "fc2") .. "%2" },
        { "^norm(.*)$", "norm%1" },
      })
      for k = 0, 1 do
        local theirs, ours = ("layer.%d.attention."):format(k), ("blocks.%d.attn.qkv."):format(k)
        local nan = ops.fill({ 24 }, { value = 0 / 0, dtype = "float32" })
        made[ours .. "weight"] = ops.concat({ given[theirs .. "q_proj.weight"], given[theirs .. "k_proj.weight"],
          given[theirs .. "v_proj.weight"] }, 1)
        made[ours .. "bias"] = ops.concat({ given[theirs .. "q_proj.bias"], nan, given[theirs .. "v_proj.bias"] }, 1)
        made[ours .. "bias_mask"] = ops.concat({ nan, nan, nan }, 1)
      end
      made["rope_embed.periods"] = tensor.tensor { 1, 2, 3 }
      safetensors.save(in_folder "own.safetensors", made)
      local model = encoder(name, tables.merged(dinov3, swiglu and { swiglu = true, mlp_ratio = 6 } or {}),
        in_folder "own.safetensors")
      assert.equal(swiglu and "dinov3_swiglu" or "dinov3",
        weights_kind.expect(weights.open(in_folder "own.safetensors")).names)
      check(name, model)
    end
  end)

  it("are CLIP's, with the tower of texts beside the pictures'", function()
    local given, made = renamed("encoder_clip", {
      { "^embeddings%.class_embedding$", "visual.class_embedding" },
      { "^embeddings%.position_embedding%.weight$", "visual.positional_embedding" },
      { "^embeddings%.patch_embedding%.weight$", "visual.conv1.weight" },
      { "^pre_layrnorm(.*)$", "visual.ln_pre%1" }, { "^post_layernorm(.*)$", "visual.ln_post%1" },
      { "^encoder%.layers%.(%d+)%.layer_norm(%d)(.*)$", "visual.transformer.resblocks.%1.ln_%2%3" },
      { "^encoder%.layers%.(%d+)%.self_attn%.out_proj(.*)$", "visual.transformer.resblocks.%1.attn.out_proj%2" },
      { "^encoder%.layers%.(%d+)%.mlp%.fc1(.*)$", "visual.transformer.resblocks.%1.mlp.c_fc%2" },
      { "^encoder%.layers%.(%d+)%.mlp%.fc2(.*)$", "visual.transformer.resblocks.%1.mlp.c_proj%2" },
    })
    for k = 0, 1 do
      for _, part in ipairs { "weight", "bias" } do
        local list = {}
        for i, which in ipairs { "q", "k", "v" } do
          list[i] = given[("encoder.layers.%d.self_attn.%s_proj.%s"):format(k, which, part)]
        end
        made[("visual.transformer.resblocks.%d.attn.in_proj_%s"):format(k, part)] = ops.concat(list, 1)
      end
    end
    for _, name in ipairs { "visual.proj", "transformer.resblocks.0.ln_1.weight", "logit_scale" } do
      made[name] = given["pre_layrnorm.bias"]
    end
    safetensors.save(in_folder "own.safetensors", made)
    local kind = weights_kind.expect(weights.open(in_folder "own.safetensors"), "vit")
    assert.same({ "clip", "visual." }, { kind.names, kind.prefix })
    local model = encoder("encoder_clip", clip, in_folder "own.safetensors")
    check("encoder_clip", model)
    local out = weights.export(model, "clip")
    for _, name in ipairs { "class_embedding", "positional_embedding", "conv1.weight" } do
      assert.same(made["visual." .. name].shape, out[name].shape)
      assert.same(made["visual." .. name]:totable(), out[name]:totable())
    end
  end)

  it("are MAE's with its decoder, and the norm that features leave out", function()
    local made = safetensors.load(oracle.path "encoder_deit.weights")
    made.mask_token, made["decoder_embed.weight"] = made.cls_token, made["norm.weight"]
    safetensors.save(in_folder "mae.safetensors", made)
    assert.equal("mae", weights_kind.expect(weights.open(in_folder "mae.safetensors")).names)
    local model = encoder("encoder_deit", tables.merged(IMAGENET, { final_norm = false }), in_folder "mae.safetensors")
    model:load {}
    local fixture = oracle.load "encoder_deit"
    oracle.near("patches", (model:features(fixture.images)), fixture["block.2"]:narrow(2, 2, 16))
  end)

  it("are those of another model", function()
    fails(function() encoder("encoder_clip", { final_norm = false, patch_bias = false }):load {} end,
      "encoder_clip.weights", "tensor 'pre_layrnorm.bias' [24] belongs to nothing in the model")
    fails(function() encoder("encoder_siglip", {}):load {} end,
      "it is SigLIP as Hugging Face saves it, and has no class token; vit has one: use class_token = false")
    fails(function() encoder("encoder_deit", { class_token = false, names = "timm" }):load {} end,
      "it has the class token 'cls_token', and vit has none: use class_token = true")
  end)
end)

-- ---- named models ------------------------------------------------------------------------------------------------

describe("the names of encoders", function()
  --- Numbers of parameters that transformers and timm make of the published settings, but for what is not used here;
  --- DINOv3's keys have a bias here, of zeros. Grids for a student's 16x16.
  local published = {
    dino_vit_s_16 = { 21665664, 16 }, dino_vit_b_8 = { 85807872, 16 }, deit_vit_s_16 = { 21665664, 16 },
    dinov3_vit_s_16 = { 21596160 + 12 * 384, 16 }, dinov3_vit_s_plus_16 = { 28692480 + 12 * 384, 16 },
    dinov3_vit_b_16 = { 85659648 + 12 * 768, 16 }, dinov3_vit_l_16 = { 303128576 + 24 * 1024, 16 },
    dinov3_vit_h_plus_16 = { 840591360 + 32 * 1280, 16 }, mae_vit_l_16 = { 303299584, 16 },
    moco_v3_vit_b_16 = { 85647360, 16 }, ijepa_vit_h_14 = { 630762240, 16 }, ijepa_vit_g_16 = { 1011368576, 16 },
    clip_vit_b_16 = { 85797888, 14 }, clip_vit_b_32 = { 87454464, 7 }, clip_vit_l_14 = { 303177728, 16 },
    siglip2_vit_b_16 = { 85843200, 16 }, siglip2_vit_so400m_14 = { 412442352, 16 },
    siglip2_vit_g_16 = { 1134838272, 16 }, vit_huge_patch14_224 = { 630764800, 16 },
  }
  it("make models of their parameters and grids", function()
    for name, entry in pairs(published) do
      local model = models[name] {}
      assert.equal(entry[1], model:parameter_count(), name)
      assert.same({ entry[2], entry[2] }, model:grid_for { 16, 16 }, name)
    end
  end)

  it("keep a model's own resizing where the recipe changes a part of it", function()
    local model = models.dinov3_vit_s_16 { resize = { antialias = false }, position = { base = 50 } }
    assert.same({ mode = "bilinear", antialias = false }, model.resize)
    assert.same({ "rotary", 50 }, { model.position_options.kind, model.position_options.base })
    fails(function() models.clip_vit_b_16 { gelu = "erf" } end, "clip_vit_b_16: the name fixes 'gelu'")
  end)

  it("refuse what they do not have", function()
    fails(function() models.siglip2_vit_b_16 { classes = 10 } end, "siglip2_vit_b_16: 'classes' needs a class token")
    local model = models.vit { width = 24, heads = 2, depth = 1, patch = 4, image = 8, class_token = false }
    fails(function() model:features(tensor.empty({ 1, 3, 8, 8 }, "float32"):fill_(0), { class_token = true }) end,
      "vit: it has no class token")
    fails(function()
      models.vit { width = 18, heads = 3, depth = 1, patch = 4, image = 8, position = rotary_position }
    end, "vit: heads of size 6; rotary positions of a grid need a multiple of 4")
    fails(function() models.vit { width = 8, heads = 1, depth = 1, patch = 4, image = 8,
      test_registers = { neurons = { { 2, 1 } } } } end,
      "vit.test_registers.neurons[1] is { 2, 1 }; the model has 1 blocks with 32 neurons each")
  end)
end)

-- ---- rotary positions ----------------------------------------------------------------------------------------------

describe("rotary positions", function()
  it("turn by rows, then by columns, or along a line", function()
    local turns = rotary.grid({ 2, 3 }, 8, { base = 100, dtype = "float64" }):totable()[1]
    local token = turns[6] -- row 1, column 2
    for k, angle in ipairs { 1, 0.1, 2, 0.2 } do
      assert.near(math.cos(angle), token[1][k], 1e-14)
      assert.near(math.sin(angle), token[2][k], 1e-14)
    end
    local line = rotary.line(4, 6, { base = 1000, dtype = "float64" }):totable()[1][4]
    for k, angle in ipairs { 3, 0.3, 0.03 } do assert.near(math.sin(angle), line[2][k], 1e-14) end
    fails(function() rotary.line(4, 5) end, "rotary positions: heads of size 5; expected an even size")
    fails(function() rotary.grid({ 2, 2 }, 6) end, "heads of size 6; a grid's two directions need a multiple of 4")
  end)

  it("cost no copy of queries, keys and values, forward or backward", function()
    local model = models.vit { width = 16, heads = 2, depth = 2, patch = 4, image = 16, position = rotary_position }
    local p = core.program.new "rotary"
    local images, loss = p:input("images", { 2, 3, 16, 16 }), nil
    p:trace(function()
      local patches = model:features(images)
      loss = ops.sum(patches * patches)
    end)
    local wrt = {}
    for k, entry in ipairs(model:named_parameters()) do wrt[k] = p:capture(entry.tensor) end
    local outputs = { { name = "loss", value = loss } }
    for k, g in ipairs(core.gradient(p, { loss }, { tensor.tensor(1, {}) }, wrt)) do
      if g then outputs[#outputs + 1] = { name = "g" .. k, value = g } end
    end
    local plan, count = require("perigee.core.plan").build(p, outputs), 0
    for _, call in ipairs(plan.calls) do
      local node = call.node
      if node.definition.name == "rotary" then
        count = count + 1
        assert.equal(plan.block_of[core.program.storage(node.x)], plan.block_of[node.y])
      end
    end
    assert.equal(4, count)
  end)
end)

-- ---- registers at test time ----------------------------------------------------------------------------------------

describe("registers of test time", function()
  local function model_of(test_registers)
    return encoder("encoder_test_registers", tables.merged(IMAGENET, { test_registers = test_registers }))
  end

  it("equal the reference: neurons' largest values on the registers, none on the patches", function()
    local _, settings = oracle.load "encoder_test_registers"
    local model = model_of { neurons = settings.neurons, count = settings.count }
    assert.equal(3, model.prefix)
    check("encoder_test_registers", model)
  end)

  it("are made of the neurons that are largest where patches have outlying norms", function()
    local model = model_of()
    model:load {}
    local fixture = oracle.load "encoder_test_registers"
    local found = model:find_register_neurons(fixture.images, { threshold = 20, block = 1, count = 3 })
    local _, collected = taps.collect(model.tokens, model, model:preprocess(fixture.images))
    local h = taps.read(collected, "block 1"):totable()
    local best = {}
    local scores, images = {}, 0
    for image = 1, 2 do
      local places = {}
      for token = 2, 17 do
        local norm = 0
        for _, x in ipairs(h[image][token]) do norm = norm + x * x end
        if math.sqrt(norm) > 20 then places[#places + 1] = token end
      end
      if #places > 0 then images = images + 1 end
      for block = 1, 2 do
        local hidden = taps.read(collected, "neurons of block " .. block):totable()[image]
        for neuron = 1, 96 do
          local sum = 0
          for _, token in ipairs(places) do sum = sum + math.abs(hidden[token][neuron]) / #places end
          scores[block * 1000 + neuron] = (scores[block * 1000 + neuron] or 0) + sum
        end
      end
    end
    for key, score in pairs(scores) do
      best[#best + 1] = { math.floor(key / 1000), key % 1000, score = score / images }
    end
    table.sort(best, function(a, b) return a.score > b.score end)
    for k = 1, 3 do
      assert.same({ best[k][1], best[k][2] }, { found[k][1], found[k][2] })
      assert.near(best[k].score, found[k].score, 1e-4)
    end
    fails(function() model:find_register_neurons(fixture.images, { threshold = 1e6 }) end,
      "no patch has a norm above 1e+06; the largest is")
  end)
end)

-- ---- a student with rotary positions -------------------------------------------------------------------------------

describe("a SiT with rotary positions", function()
  local SHAPE = { width = 16, depth = 2, heads = 2, patch = 2, size = { 4, 6 }, channels = 3, classes = 3,
    rotary = true }
  local function student(more)
    local model = models.sit(tables.merged(SHAPE, more))
    model:materialise { seed = 2, dtype = "float64" }
    local state = tensor.tensor({ 4, 0, 0 }, "int64")
    for k, entry in ipairs(model:named_parameters()) do -- the modulation too
      entry.tensor:copy_(ops.random_normal(entry.tensor.shape, { state = state, purpose = "p" .. k, dtype = "float64" })
        * 0.3)
    end
    return model
  end
  local function random(shape, purpose)
    return ops.random_normal(shape,
      { state = tensor.tensor({ 6, 0, 0 }, "int64"), purpose = purpose, dtype = "float64" })
  end
  local x, t, y = random({ 2, 3, 4, 6 }, "x"), tensor.tensor({ 0.3, 0.8 }, "float64"), tensor.tensor({ 0, 2 }, "int64")

  it("turns queries and keys by rows and columns, and what aligns sees them so", function()
    local model, plain = student(), student { rotary = false }
    local turned, collected = taps.collect(model.forward, model, x, t, y)
    local other, before = taps.collect(plain.forward, plain, x, t, y)
    assert.is_true((turned - other):abs():max():item() > 1e-3)
    local expected = ops.rotary(taps.read(before, "qkv of block 1"), rotary.grid({ 2, 3 }, 8, { dtype = "float64" }),
      { interleaved = true })
    oracle.near("qkv", taps.read(collected, "qkv of block 1"), expected, 1e-12)
  end)

  it("has gradients through the alignment of its attention, with blocks recomputed or not", function()
    local theirs = random({ 2, 6, 3, 2, 8 }, "teacher")
    local results = {}
    for k, recompute in ipairs { false, true } do
      local model = student { recompute = recompute }
      local also = { model.blocks[1].attention.qkv.weight, model.blocks[2].attention.qkv.bias }
      local function loss(input)
        local _, collected = taps.collect(model.forward, model, input, t, y)
        return ops.attention_alignment(taps.read(collected, "qkv of block 2"), theirs, { heads = 2, teacher_skip = 0 })
      end
      local gradients = core.grad(loss, { x }, { also = also })
      results[k] = { gradients[1]:totable(), gradients[2]:totable(), gradients[3]:totable() }
      for place, parameter in ipairs(also) do
        local direction = random(parameter.shape, "direction")
        local slope = ops.sum(gradients[place + 1] * direction):item()
        local step = 1e-5
        local kept = parameter:clone()
        parameter:copy_(kept + direction * step)
        local above = loss(x):item()
        parameter:copy_(kept - direction * step)
        local below = loss(x):item()
        parameter:copy_(kept)
        assert.near((above - below) / (2 * step), slope, 1e-7 * math.max(1, math.abs(slope)))
      end
    end
    assert.same(results[1], results[2])
  end)

  it("needs heads of a multiple of 4", function()
    fails(function() models.sit { width = 12, depth = 1, heads = 2, size = 4, rotary = true } end,
      "sit: heads of size 6; rotary positions of a grid need a multiple of 4")
  end)
end)
