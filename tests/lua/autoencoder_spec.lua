-- Autoencoders of pictures, held against diffusers' (tests/oracle/build_autoencoder.py): values, names, files.
local core = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local safetensors = require "perigee.io.safetensors"
local tables = require "perigee.base.tables"
local weights = require "perigee.io.weights"
local weights_kind = require "perigee.io.weights_kind"

local fails = expect.fails
local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local CASES = {
  f8 = { channels = 32, mult = { 1, 2, 2, 3 }, blocks = 1 },
  f16 = { channels = 32, mult = { 1, 1, 1, 1, 2 }, blocks = 1, latent = 8, attention = { 5 } },
}

local drawn = {} -- the fixtures' weights

--- A fixture's weights, by the formula of its builder: { diffusers' name, CompVis', tensor }.
local function formula_weights(case, key)
  if drawn[case .. (key or "")] then return drawn[case .. (key or "")] end
  local _, settings = oracle.load("autoencoder_" .. case)
  local list = {}
  drawn[case .. (key or "")] = list
  for number, entry in ipairs(settings[key or "tensors"]) do
    local name, shape, compvis = unpack(entry)
    local s, count, times = number, layout.numel(shape), math.sqrt(3 * shape[1] / layout.numel(shape))
    local shift = name:match "weight$" and 1 or 0
    local t = pg.empty(shape)
    local values = t:pointer()
    for k = -10, count - 1 do
      s = s * 16807
      s = s - math.floor(s / 2147483647) * 2147483647
      local u = 2 * s / 2147483647 - 1
      if k >= 0 then values[k] = #shape == 1 and shift + u / 5 or u * times end
    end
    list[number] = { name, compvis, t }
  end
  return list
end

--- The weights under other names: of diffusers, or of CompVis with attention's matrices as 1×1 convolutions.
local function named(case, name_of)
  local made = {}
  for _, entry in ipairs(formula_weights(case)) do
    local name, t = name_of(entry[1], entry[2]), entry[3]
    local matrix = name == entry[2] and name:match "attn[%w_.]*%.weight$" and #t.shape == 2
    made[name] = matrix and t:reshape { t.shape[1], t.shape[2], 1, 1 } or t
  end
  return made
end

local function as_diffusers(name) return name end
local function as_compvis(_, compvis) return compvis end
local older = { to_q = "query", to_k = "key", to_v = "value", to_out = "proj_attn" }
local function as_older(name)
  return (name:gsub("to_out%.0", "to_out"):gsub("to_[%w]+", older))
end

local function saved(case, name_of, prefix)
  local tensors = {}
  for name, t in pairs(named(case, name_of)) do tensors[(prefix or "") .. name] = t end
  safetensors.save(in_folder "vae.safetensors", tensors)
  return in_folder "vae.safetensors"
end

local function opened(case, path, dtype)
  local model = models.autoencoder_kl(tables.merged(CASES[case], { weights = path }))
  model:materialise { dtype = dtype or "float32" }
  return model
end

local function hold(case, model, bound)
  local expected, dtype = oracle.load("autoencoder_" .. case), model.quant.weight.dtype
  local mean, std = model:encode(expected.picture:to(dtype))
  oracle.near("mean", mean, expected.mean, bound)
  oracle.near("std", std, expected.std, bound)
  oracle.near("decoded", model:decode(expected.code:to(dtype)), expected.decoded, bound)
end

describe("AutoencoderKL", function()
  it("encodes and decodes as diffusers' does, from its file", function()
    local path = saved("f8", as_diffusers)
    hold("f8", opened("f8", path), 1e-5)
    hold("f8", opened("f8", path, "float64"), 1e-7)
  end)

  it("reads the older names of attention, and CompVis' under a prefix", function()
    local path = saved("f8", as_older)
    assert.equal("autoencoder_kl_older", weights_kind.expect(weights.open(path)).names)
    hold("f8", opened("f8", path), 1e-5)
    path = saved("f8", as_compvis, "first_stage_model.")
    assert.equal("first_stage_model.", weights_kind.expect(weights.open(path)).prefix)
    hold("f8", opened("f8", path), 1e-5)
  end)

  it("has five levels with attention in the last, as VA-VAE", function()
    hold("f16", opened("f16", saved("f16", as_compvis)), 1e-5)
  end)

  it("writes under each table of names what it read", function()
    local model = opened("f8", saved("f8", as_diffusers))
    local tables_of_names = { autoencoder_kl = as_diffusers, autoencoder_kl_older = as_older,
      autoencoder_kl_compvis = as_compvis }
    for names, name_of in pairs(tables_of_names) do
      local found, expected = weights.export(model, names), named("f8", name_of)
      assert.equal(#formula_weights "f8", #tables.sorted_keys(found), names)
      for name, t in pairs(expected) do
        assert.same(t.shape, found[name].shape, name)
        assert.equal(0, (found[name] - t):abs():max():item(), name)
      end
    end
  end)

  it("has the 248 names and shapes of Stable Diffusion's", function()
    local model, count = models.autoencoder_kl(), 0
    local shapes = {}
    for _, entry in ipairs(weights.public_parameters(model, "autoencoder_kl")) do
      for _, name in ipairs(entry.names or { entry.name }) do
        local shape = { unpack(entry.shape) }
        shape[1] = shape[1] / #(entry.names or { 1 })
        shapes[name] = table.concat(shape, "x")
      end
    end
    for name, shape in files.read(core.home .. "/tests/oracle/fixtures/autoencoder_kl.names"):gmatch "(%S+)\t(%S+)\n" do
      assert.equal(shape, shapes[name], name)
      count = count + 1
    end
    assert.equal(248, count)
    assert.equal(248, #tables.sorted_keys(shapes))
    assert.equal(83653863, model:parameter_count())
  end)

  it("finds its options in a file's shapes", function()
    for case, name_of in pairs { f8 = as_diffusers, f16 = as_compvis } do
      local file = weights.open(saved(case, name_of))
      local found = models.autoencoder_kl.options_of(file, weights_kind.expect(file))
      local wanted = tables.merged({ attention = {}, latent = 4, pictures = 3, moments = true }, CASES[case])
      assert.same(wanted, found)
    end
  end)

  it("gives every parameter a gradient", function()
    local model = opened("f8", saved("f8", as_diffusers), "float64")
    local expected = oracle.load "autoencoder_f8"
    local x, list = expected.picture:to("float64"):narrow(1, 1, 1):narrow(3, 1, 16):narrow(4, 1, 16):contiguous(), {}
    for k, entry in ipairs(model:named_parameters()) do list[k] = entry.tensor end
    local gradients = pg.grad(function() return (model(x) - x):square():mean() end, list)
    for k, entry in ipairs(model:named_parameters()) do
      assert.is_true(gradients[k]:abs():max():item() > 0, entry.name)
    end
  end)

  it("says what does not fit", function()
    local path = saved("f8", as_diffusers)
    fails(function() models.autoencoder_kl({ weights = path }):materialise() end, "vae.safetensors: tensor '")
    fails(function() models.sit_s_2({ weights = path }):materialise() end,
      "it is an AutoencoderKL as diffusers saves it, which a model of another family holds")
    fails(function() models.autoencoder_kl { mult = {} } end, "'mult' is empty")
    fails(function() models.autoencoder_kl { attention = { 5 } } end, "'attention' names level 5 of 4")
    fails(function() models.autoencoder_kl { channels = 48 } end, "48 channels do not divide into 32 groups")
    local model = opened("f8", path)
    fails(function() model:encode(pg.zeros(1, 3, 20, 32)) end,
      "pictures are [1,3,20,32]; expected [B,3,H,W] with H and W multiples of 8")
    fails(function() model:decode(pg.zeros(1, 8, 3, 3)) end, "latents are [1,8,3,3]; expected [B,4,H,W]")
  end)
end)

describe("a tiny autoencoder", function()
  local function save(key, prefix)
    local tensors = {}
    for _, entry in ipairs(formula_weights("tiny", key)) do
      local name = prefix and entry[1]:match("^" .. prefix .. "(.*)$") or not prefix and entry[1]
      if name then tensors[name] = entry[3] end
    end
    safetensors.save(in_folder "tiny.safetensors", tensors)
    return in_folder "tiny.safetensors"
  end

  local function open(path, options)
    local model = models.autoencoder_tiny(tables.merged({ weights = path, channels = 8 }, options))
    model:materialise()
    return model
  end

  it("encodes and decodes as diffusers' does", function()
    local expected = oracle.load "autoencoder_tiny"
    local model = open(save "tensors")
    local mean, deviation = model:encode(expected.picture)
    oracle.near("encoded", mean, expected.encoded, 1e-5)
    assert.equal(0, deviation:abs():max():item())
    oracle.near("decoded", model:decode(expected.code), expected.decoded, 1e-5)
  end)

  it("is an encoder or a decoder as they are released, and may have a branch with a norm", function()
    local expected = oracle.load "autoencoder_tiny"
    local decoder = models.autoencoder { weights = save "decoder" }
    decoder:materialise()
    assert.equal(5, decoder.latent)
    oracle.near("decoded", decoder:decode(expected["decoder.code"]), expected["decoder.decoded"], 1e-5)
    local encoder = models.autoencoder { weights = save("tensors", "encoder%.layers%.") }
    encoder:materialise()
    oracle.near("encoded", (encoder:encode(expected.picture)), expected.encoded, 1e-5)
    fails(function() encoder:decode(expected.code) end, "autoencoder_tiny: it has no decoder")
  end)
end)

describe("the autoencoder of a file", function()
  it("is the one that its names and shapes say", function()
    local model = models.autoencoder { weights = saved("f16", as_compvis) }
    assert.equal("autoencoder_kl", model.class_name)
    assert.same({ 8, 16, 1 }, { model.latent, model.shrink, model.scale })
    model:materialise()
    hold("f16", model, 1e-5)
    assert.equal(0.18215, models.autoencoder({ weights = saved("f8", as_older) }).scale)
    assert.equal(0.25, models.autoencoder({ weights = saved("f8", as_older), scale = 0.25 }).scale)
  end)

  it("is an error where the file is something else", function()
    local sit = models.sit { width = 16, depth = 1, heads = 2, classes = 3, size = { 4, 6 } }
    sit:materialise()
    weights.save(in_folder "sit.safetensors", sit, { names = "repa" })
    fails(function() models.autoencoder { weights = in_folder "sit.safetensors" } end,
      "it is SiT as REPA and HASTE save it, not an autoencoder")
    safetensors.save(in_folder "else.safetensors", { x = pg.zeros(2) })
    fails(function() models.autoencoder { weights = in_folder "else.safetensors" } end,
      "else.safetensors: its names are in no known table")
    fails(function() models.autoencoder {} end, "option 'weights' is missing")
  end)
end)
