-- Public weights: their kinds, conversions, and the way back; held against PyTorch's (tests/oracle/build_official.py).
local core = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local pytorch = require "perigee.io.pytorch"
local pytorch_save = require "perigee.io.pytorch_save"
local safetensors = require "perigee.io.safetensors"
local weights = require "perigee.io.weights"
local weights_kind = require "perigee.io.weights_kind"
local zip = require "perigee.io.zip"

local fails = expect.fails
local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)
local OFFICIAL = core.home .. "/tests/oracle/fixtures/pytorch/sit_official.pt"
local SHAPE = { width = 16, depth = 1, heads = 2, classes = 3, size = { 4, 6 } }

local function sit(options)
  local all = {}
  for key, value in pairs(SHAPE) do all[key] = value end
  for key, value in pairs(options or {}) do all[key] = value end
  return models.sit(all)
end

local function materialised(model)
  model:materialise { dtype = "float64" }
  return model
end

describe("the official SiT", function()
  it("is recognised, moving averages first", function()
    local kind = weights_kind.expect(weights.open(OFFICIAL))
    assert.equal("sit", kind.names)
    assert.same({ "ema.", "model." }, kind.prefixes)
    assert.equal("ema.", kind.prefix)
    assert.equal("model.", weights_kind.expect(weights.open(OFFICIAL), "sit", { take = "model" }).prefix)
    fails(function() weights_kind.expect(weights.open(OFFICIAL), "sit", { take = "teacher" }) end,
      "it has no weights under 'teacher'; it has them under 'ema' and 'model'")
    fails(function() weights_kind.expect(weights.open(OFFICIAL), "vit") end, "it is the official SiT, which a model")
  end)

  it("gives the velocity that its network gives at the opposite time, with the opposite sign", function()
    local expected = oracle.load "sit_official"
    local model = materialised(sit { weights = OFFICIAL })
    local ours = model(expected.x:to "float64", 1 - expected.t:to "float64", expected.y)
    oracle.near("velocity", ours, pg.ops.mul(expected.velocity:to "float64", -1), 1e-6)
    local other = materialised(sit { weights = OFFICIAL, take = "model" })
    local theirs = other(expected.x:to "float64", 1 - expected.t:to "float64", expected.y)
    assert.is_true((theirs - ours):abs():max():item() > 0.1)
  end)

  it("comes back from a model as it was, but for the variance", function()
    local model = materialised(sit { weights = OFFICIAL })
    local out, original = weights.export(model, "sit"), weights.open(OFFICIAL)
    local count = 0
    for name, t in pairs(out) do
      local given = original:read("ema." .. name)
      assert.same(given.shape, t.shape, name)
      if name:sub(1, 19) == "final_layer.linear." then -- [pixels, 2·channels, ..]: the variance's rows are zero
        local pixels = t:reshape { 4, 8, given.shape[2] or 1 }
        assert.equal(0, pixels:narrow(2, 5, 4):abs():max():item())
        given, t = given:reshape(pixels.shape):narrow(2, 1, 4), pixels:narrow(2, 1, 4)
      end
      oracle.near(name, t, given, 2e-7)
      count = count + 1
    end
    assert.equal(22, count)
    assert.equal(22, #original.names / 2)
  end)

  it("has DiT's names, so that one of them must be said where the file does not", function()
    local file, tensors = weights.open(OFFICIAL), {}
    for _, name in ipairs(file.names) do
      if name:match "^ema%." then tensors[name:sub(5)] = file:read(name) end
    end
    safetensors.save(in_folder "bare.safetensors", tensors)
    fails(function() sit({ weights = in_folder "bare.safetensors" }):materialise() end,
      "bare.safetensors: its names are those of dit and sit alike")
    sit({ weights = in_folder "bare.safetensors", names = "sit" }):materialise()
    local dit = materialised(sit { weights = in_folder "bare.safetensors", names = "dit" })
    local last = tensors["final_layer.linear.bias"]:totable()
    local ours = dit.final.projection.bias:totable()
    for pixel = 0, 3 do
      for channel = 1, 4 do assert.near(last[8 * pixel + channel], ours[4 * pixel + channel], 1e-7) end
    end
    safetensors.save(in_folder "other.safetensors", { x = tensors.pos_embed })
    fails(function() sit({ weights = in_folder "other.safetensors" }):materialise() end,
      "its names are in no known table")
  end)

  it("with names that are missing or too many is said to be near", function()
    local file, tensors = weights.open(OFFICIAL), {}
    for _, name in ipairs(file.names) do
      if name:match "^ema%." then tensors[name:sub(5)] = file:read(name) end
    end
    tensors["t_embedder.mlp.0.weight"], tensors.surplus = nil, tensors.pos_embed
    safetensors.save(in_folder "near.safetensors", tensors)
    fails(function() sit({ weights = in_folder "near.safetensors" }):materialise() end, "the nearest is dit",
      "lacks 't_embedder.mlp.0.weight' and has 'surplus' besides")
  end)
end)

describe("REPA's older checkpoints", function()
  it("go on counting blocks in decoder_blocks", function()
    local model, made = models.sit { depth = 3, width = 8, heads = 2, size = 4, classes = 2 }, {}
    model:materialise { seed = 3 }
    for name, t in pairs(weights.export(model, "repa")) do
      made[name:gsub("^blocks%.1%.", "decoder_blocks.0."):gsub("^blocks%.2%.", "decoder_blocks.1.")] = t
    end
    assert.is_table(made["decoder_blocks.1.attn.qkv.weight"])
    pytorch_save.save(in_folder "old.pt", { ema = made })
    local again = models.sit { depth = 3, width = 8, heads = 2, size = 4, classes = 2, weights = in_folder "old.pt" }
    again:materialise()
    for name, t in pairs(model:parameters()) do assert.same(t:totable(), again:parameters()[name]:totable(), name) end
  end)
end)

describe("a vision transformer's weights", function()
  local path = oracle.path "vit_dinov2_tiny.weights"

  --- The tiny DINOv2's tensors under Hugging Face's names.
  local function hugging_face(prefix)
    local given, made = safetensors.load(path), {}
    local plain = { cls_token = "embeddings.cls_token", pos_embed = "embeddings.position_embeddings",
      register_tokens = "embeddings.register_tokens", mask_token = "embeddings.mask_token",
      ["patch_embed.proj.weight"] = "embeddings.patch_embeddings.projection.weight",
      ["patch_embed.proj.bias"] = "embeddings.patch_embeddings.projection.bias",
      ["norm.weight"] = "layernorm.weight", ["norm.bias"] = "layernorm.bias" }
    for name, t in pairs(given) do
      local block, part, last = name:match "^blocks%.(%d+)%.(.+)%.(%w+)$"
      local head = block and ("encoder.layer.%s."):format(block)
      if part == "attn.qkv" then
        for k, one in ipairs { "query", "key", "value" } do
          local rows = t.shape[1] / 3
          made[prefix .. head .. "attention.attention." .. one .. "." .. last] = t:narrow(1, (k - 1) * rows + 1, rows)
        end
      elseif block then
        local theirs = ({ ["attn.proj"] = "attention.output.dense", ls1 = "layer_scale1", ls2 = "layer_scale2" })[part]
          or part
        made[prefix .. head .. theirs .. "." .. (last == "gamma" and "lambda1" or last)] = t
      else made[prefix .. assert(plain[name], name)] = t end
    end
    return made
  end

  local function teacher(file, names)
    local _, settings = oracle.load "vit_dinov2_tiny"
    local entries = safetensors.open(path).entries
    return models.vit { width = settings.width, depth = settings.depth, heads = settings.heads, patch = settings.patch,
      stored = math.sqrt(entries.pos_embed.shape[2] - 1), layer_scale = true, weights = file, names = names,
      registers = entries.register_tokens and entries.register_tokens.shape[2] or 0 }
  end

  it("from Hugging Face are the hub's", function()
    for _, prefix in ipairs { "", "dinov2." } do
      safetensors.save(in_folder "hf.safetensors", hugging_face(prefix))
      assert.equal("dinov2_hf", weights_kind.expect(weights.open(in_folder "hf.safetensors")).names)
      local hub, hf = teacher(path), teacher(in_folder "hf.safetensors")
      hub:materialise()
      hf:materialise()
      local own = hf:parameters()
      for name, t in pairs(hub:parameters()) do assert.same(t:totable(), own[name]:totable(), name) end
      assert.same({}, (function()
        local wrong, out = {}, weights.export(hf, "dinov2_hf")
        for name, t in pairs(hugging_face "") do
          local same = name:match "mask_token" or out[name] and pg.ops.allclose(out[name]:contiguous(), t:contiguous())
          if not same then wrong[#wrong + 1] = name end
        end
        return wrong
      end)())
    end
  end)

  it("of MoCo v3 load through its misspelt names and prefix", function()
    local made, given = {}, {}
    local model = models.vit { width = 8, depth = 15, heads = 2, patch = 4, image = 8 }
    model:materialise()
    for name, t in pairs(weights.export(model, "timm")) do
      given[name] = t
      name = name:gsub("blocks%.13%.norm1", "blocks.13.norm13"):gsub("blocks%.14%.mlp%.fc2", "blocks.14.mlp.fc14")
      made["module.base_encoder." .. name] = t
    end
    made["module.base_encoder.head.0.weight"], made["module.predictor.0.weight"] = given.cls_token, given.cls_token
    pytorch_save.save(in_folder "moco.pt", { state_dict = made, epoch = 300 })
    local kind = weights_kind.expect(weights.open(in_folder "moco.pt"))
    assert.equal("moco_v3 state_dict.module.base_encoder.", kind.names .. " " .. kind.prefix)
    local again = models.vit { width = 8, depth = 15, heads = 2, patch = 4, image = 8, weights = in_folder "moco.pt" }
    again:materialise()
    assert.same(model.blocks[14].norm1.weight:totable(), again.blocks[14].norm1.weight:totable())
    assert.same(model.blocks[15].mlp.output.weight:totable(), again.blocks[15].mlp.output.weight:totable())
  end)

  it("that another model holds are named", function()
    local clip = oracle.path "encoder_clip.weights"
    fails(function() teacher(clip):materialise() end, clip,
      "it is CLIP as Hugging Face saves it; the model's blocks.1.scale1.gamma has no name there")
  end)
end)

describe("a file for PyTorch", function()
  it("reads back, and equal contents make equal files", function()
    local given = { model = { a = pg.tensor { { 1, 2 }, { 3, 4 } }, b = pg.tensor({ 1.5 }, "bfloat16"),
      t = pg.tensor({ { 1, 2 }, { 3, 4 } }):transpose(1, 2) },
      steps = 7, rate = 1e-4, name = "é", yes = true, big = 2 ^ 40 }
    pytorch_save.save(in_folder "a.pt", given)
    pytorch_save.save(in_folder "b.pt", given)
    assert.equal(files.read(in_folder "a.pt"), files.read(in_folder "b.pt"))
    local file = pytorch.open(in_folder "a.pt")
    assert.same({ { 1, 3 }, { 2, 4 } }, file:read("model.t"):totable())
    assert.same({ 1.5 }, file:read("model.b"):totable())
    assert.same({ 7, 1e-4, "é", true, 2 ^ 40 }, { file.value:get "steps", file.value:get "rate", file.value:get "name",
      file.value:get "yes", file.value:get "big" })
    local archive = zip.open(in_folder "a.pt")
    assert.equal(6, #archive.names)
    for _, name in ipairs(archive.names) do
      local offset, bytes = archive:place(name)
      assert.equal(0, offset % 64)
      assert.equal(files.crc32(in_folder "a.pt", offset, bytes), archive.entries[name].crc)
    end
    fails(function() pytorch_save.save(in_folder "c.pt", { f = print }) end, "c.pt: a function can't be written")
    assert.is_nil(files.kind(in_folder "c.pt"))
  end)
end)
