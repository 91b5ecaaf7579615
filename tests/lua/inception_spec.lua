-- The network of FID, its files of weights, the numbers made of its features, and `perigee eval --inception`.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local feature_set = require "perigee.metrics.feature_set"
local files = require "perigee.io.files"
local formula = require "tests.lua.inception"
local frechet = require "perigee.metrics.frechet"
local inception_score = require "perigee.metrics.inception_score"
local json = require "perigee.io.json"
local kernel_distance = require "perigee.metrics.kernel_distance"
local manifold = require "perigee.metrics.manifold"
local models = require "perigee.models"
local npz = require "perigee.io.npz"
local oracle = require "tests.lua.oracle"
local tiny = require "tests.lua.tiny"

local ops, tensor = core.ops, core.tensor
local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local all, places, shared -- the formula's weights, and a folder with their files, made once
teardown(function() if shared then files.remove_tree(shared) end end)

local function weights_at(name)
  if not all then
    all, places = tensor.outlive(formula.tensors, models.inception())
    shared = os.tmpname()
    os.remove(shared)
    files.make_folder(shared)
  end
  local path = shared .. "/" .. name
  if files.exists(path) then return path end
  if name:match "%.pb$" then formula.save_graph(path, all, places) else formula.save_pytorch(path, all) end
  return path
end

local function message_of(body)
  local fine, message = pcall(body)
  assert.is_false(fine)
  return tostring(message)
end

describe("the Inception network", function()
  local fixture = oracle.load "inception"
  local pictures = { small = fixture["small.pictures"]:to "uint8" }
  local bytes = require("ffi").new("uint8_t[?]", 300 * 300 * 3)
  for at = 0, 300 * 300 * 3 - 1 do bytes[at] = math.floor((at * at * 7 + at * 31) / 64) % 256 end
  pictures.square = tensor.outlive(tensor.tensor, bytes, { 1, 300, 300, 3 }, "uint8")

  local function expect(model, case, convention, name)
    local x = ops.images(pictures[case], { scale = 1, offset = 0, dtype = "float32" })
    local features, spatial = model(model:preprocess(x, convention))
    local distance = oracle.distance(features, fixture[case .. "." .. name])
    assert.is_true(distance < 1e-5, ("%s %s: %g"):format(case, name, distance))
    return features, spatial
  end

  it("is torch-fidelity's, with the weights of PyTorch's file, in all three conventions", function()
    local model = models.inception { weights = weights_at "weights.pth" }
    model:load()
    for case in pairs(pictures) do
      local features, spatial = expect(model, case, "adm", "features")
      assert.is_true(oracle.distance(spatial, fixture[case .. ".spatial"]) < 1e-5)
      assert.is_true(oracle.distance(model:logits(features), fixture[case .. ".logits"]) < 1e-5)
      local biased = model:logits(features, { bias = true }) - model:logits(features)
      assert.is_true(oracle.distance(biased:reshape { 1008 }, all["fc.bias"]) < 1e-5)
    end
    expect(model, "small", "pytorch-fid", "pytorch_fid")
    expect(model, "square", "clean-fid", "clean_fid")
    assert.matches("unknown convention 'tf'; expected one of adm, clean%-fid, pytorch%-fid",
      message_of(function() model:preprocess(ops.fill({ 1, 3, 4, 4 }, { value = 0 }), "tf") end))
    assert.matches("inception: expected pictures %[B,3,299,299%], got %[2,3%]",
      message_of(function() model(ops.fill({ 2, 3 }, { value = 0 })) end))
  end)

  it("is the same with the weights of TensorFlow's graph", function()
    local model = models.inception { weights = weights_at "graph.pb" }
    model:load()
    local features = expect(model, "small", "adm", "features")
    assert.is_true(oracle.distance(model:logits(features), fixture["small.logits"]) < 1e-5)
  end)

  it("refuses other weights", function()
    local function message(tensors)
      local path = in_folder "other.pth"
      files.remove(path)
      formula.save_pytorch(path, tensors)
      return message_of(function() models.inception({ weights = path }):load() end)
    end
    local one = ops.fill({ 32, 3, 3, 3 }, { value = 1 })
    assert.matches("other.pth: not the Inception network that FID uses: it has neither", message { x = one })
    assert.matches("its last layer has 1000 classes, not 1008, so it is perhaps torchvision's",
      message { ["Conv2d_1a_3x3.conv.weight"] = one, ["fc.weight"] = ops.fill({ 1000, 2048 }, { value = 1 }) })
    assert.matches("other.pth: it has no tensor 'Conv2d_1a_3x3.bn.weight'",
      message { ["Conv2d_1a_3x3.conv.weight"] = one, ["fc.weight"] = ops.fill({ 1008, 1 }, { value = 1 }) })
    assert.matches("no weights to load", message_of(function() models.inception():load() end))
  end)
end)

describe("a frozen graph of TensorFlow", function()
  local weights_file = require "perigee.io.weights_file"
  local t = tensor.outlive(tensor.tensor, { { 1, 2, 3 }, { 4, 5, 6 } }, "float32")

  local function open(text)
    local path = in_folder "graph.pb"
    files.write(path, text)
    return weights_file.open(path)
  end

  it("gives its constants, as content or as numbers, and nothing else", function()
    local file = open(formula.node("input", "Placeholder", "x") .. formula.constant("a/b", t)
      .. formula.constant("c", t, true) .. formula.node("d", "Relu", "c"))
    assert.same({ "a/b", "c" }, file.names)
    for _, name in ipairs(file.names) do assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, file:read(name):totable()) end
    assert.matches("graph.pb: it has no constant 'e'", message_of(function() file:read "e" end))
    local status, output = tiny.perigee("inspect " .. in_folder "graph.pb")
    assert.equal(0, status, output)
    assert.matches("a frozen graph of TensorFlow, 2 tensors of 12 numbers", output)
  end)

  it("that is cut off anywhere is refused or has fewer constants", function()
    local whole = formula.node("input", "Placeholder", "x") .. formula.constant("a/b", t) .. formula.constant("c", t)
    local refused = 0
    for length = 8, #whole - 1 do
      local fine, result = pcall(open, whole:sub(1, length))
      if fine then assert.is_true(#result.names < 2)
      else
        refused = refused + 1
        assert.matches("graph%.pb: ", tostring(result))
      end
    end
    assert.is_true(refused > #whole - 12)
  end)

  it("with wrong sizes is refused by name", function()
    local good = formula.constant("a", t)
    local field = formula.field
    for text, expected in pairs {
      [good .. good] = "two constants 'a'",
      [good .. "\10\255\255\255\255\255\255\255\255\127"] = "is cut off",
      [good .. "\10\255\255\255\255\255\255\255\255\255\255\1"] = "a number of more than ten bytes",
      [good .. field(1, field(1, ("n"):rep(2000)))] = "a name of 2000 bytes",
      [good .. field(1, "\11")] = "an unknown kind of field",
      [good .. field(1, field(1, "b") .. field(5, field(1, "value") .. field(2, field(8, field(2,
        field(2, "\8" .. ("\255"):rep(6) .. "\127"))))))] = "a tensor of absurd shape",
    } do
      local message = message_of(function() open(text) end)
      assert.matches("graph.pb: not a frozen graph of TensorFlow that can be read: ", message, nil, true)
      assert.matches(expected, message, nil, true)
    end
    -- a constant whose numbers are not as many as its shape says is none
    local one = t:narrow(1, 1, 1):contiguous()
    local short = formula.constant("b", one):gsub("\18\2\8\1", "\18\2\8\7")
    assert.same({ "a" }, open(good .. short).names)
  end)
end)

describe("the five numbers", function()
  local f = oracle.load "five_numbers"
  local function set(name, factor) return feature_set.of(factor and f[name] * factor or f[name], name) end

  it("are torch-fidelity's: FID, KID, precision and recall", function()
    local a, b = frechet.sums(24), frechet.sums(24)
    set("reference"):each(function(rows) a:add(rows) end)
    set("samples"):each(function(rows) b:add(rows) end)
    local fid = frechet.distance(a:moments(), b:moments())
    assert.is_true(math.abs(fid - f.fid:item()) < 1e-8 * f.fid:item())
    local first = feature_set.of(f.reference:narrow(1, 1, 260):contiguous(), "reference")
    local kid, deviation = kernel_distance.distance(first, set "samples")
    assert.is_true(math.abs(kid - f.kid:item()) < 1e-9)
    assert.equal(0, deviation)
    local precision, recall = manifold.precision_and_recall(set "reference", set "samples", { half = false })
    local expected = f.fidelity:totable()
    assert.is_true(math.abs(precision - expected[1]) < 1e-6 and math.abs(recall - expected[2]) < 1e-6)
  end)

  for _, case in ipairs { { "", 1 }, { "large.", 64 }, { "small.", 2 ^ -11 } } do
    it("have the ADM evaluator's precision and recall, to the picture: " .. case[1], function()
      for name, half in pairs { half = true, single = false } do
        local precision, recall = manifold.precision_and_recall(set("reference", case[2]), set("samples", case[2]),
          { half = half })
        local expected = f[case[1] .. name]:totable()
        local text = ("%s: %g %g, not %g %g"):format(name, precision, recall, unpack(expected))
        assert.is_true(math.abs(precision - expected[1]) < 1e-9 and math.abs(recall - expected[2]) < 1e-9, text)
      end
    end)
  end

  it("have an Inception score by parts in the file's order", function()
    local score = inception_score.new(25)
    for _, piece in ipairs { { 1, 33 }, { 34, 1 }, { 35, 73 } } do
      score:add(f.class_logits:narrow(1, piece[1], piece[2]):contiguous())
    end
    local mean, deviation = score:value()
    local expected = f.score:totable()
    assert.is_true(math.abs(mean - expected[1]) < 1e-10 and math.abs(deviation - expected[2]) < 1e-10)
  end)

  it("have a kernel distance over random subsets that is near that of all", function()
    local kid, deviation = kernel_distance.distance(set "reference", set "samples", { subsets = 60, size = 100 })
    assert.is_true(deviation > 0 and math.abs(kid - f.kid:item()) < 4 * deviation / math.sqrt(60) + 0.05)
  end)

  it("have DINOv2's positions resampled as its own code does", function()
    local hub_positions = require "perigee.metrics.hub_positions"
    local made = hub_positions.resample(f.positions, { 7, 7 }, { 4, 3 })
    assert.same({ 1, 13, 5 }, made.shape)
    assert.equal(2, made:totable()[1][1][5])
    assert.is_true(oracle.distance(made:narrow(2, 2, 12):contiguous(), f.positions_4x3) < 1e-6)
    local plain = ops.resize_tokens(f.positions, { from = { 7, 7 }, to = { 4, 3 }, skip = 1, mode = "bicubic" })
    local without = hub_positions.resample(f.positions, { 7, 7 }, { 4, 3 }, 0)
    assert.is_true(oracle.distance(without:narrow(2, 2, 12):contiguous(), plain) < 1e-6)
  end)

  it("say where there is too little to compare", function()
    local three = feature_set.of(f.reference:narrow(1, 1, 3):contiguous(), "three.npz")
    assert.matches("three.npz has 3 points; expected more than 3",
      message_of(function() manifold.precision_and_recall(three, set "samples") end))
    assert.matches("Inception score: no picture was added", message_of(function() inception_score.new():value() end))
  end)
end)

describe("perigee eval --inception", function()
  local function perigee(arguments)
    local status, output = tiny.perigee(arguments, ("PERIGEE_CACHE=%s "):format(in_folder "cache"))
    return status, output
  end

  local function pictures(path, count, seed)
    local state = tensor.tensor({ seed, 0, 0 }, "int64")
    local noise = ops.random_normal({ count, 8, 8, 3 }, { state = state, purpose = "x", dtype = "float32" })
    local images = (noise * 40 + 128):clamp(0, 255):to "uint8"
    npz.save(path, function(add)
      add("arr_0", "uint8", images.shape, function(append) append(images) end)
    end)
    return images
  end

  it("evaluates files of samples, of which a killed evaluation goes on, and makes references", function()
    local weights = weights_at "weights.pth"
    pictures(in_folder "real.npz", 7, 1)
    local images = pictures(in_folder "samples.npz", 6, 2)
    local status, output = perigee(("eval --make-reference %s %s --inception %s"):format(in_folder "real.npz",
      in_folder "reference.npz", weights))
    assert.equal(0, status, output)
    local names = npz.names(in_folder "reference.npz")
    table.sort(names)
    assert.same({ "arr_0", "mu", "mu_s", "sigma", "sigma_s" }, names)

    local function evaluate(samples, reference)
      local s, text = perigee(("eval %s --reference %s --inception %s --json"):format(samples, reference, weights))
      assert.equal(0, s, text)
      return json.decode(text)[1].result
    end
    local made = evaluate(in_folder "samples.npz", in_folder "reference.npz")
    local plain = evaluate(in_folder "samples.npz", in_folder "real.npz")
    assert.equal("inception adm", made.name)
    for _, key in ipairs { "fid", "sfid", "inception_score", "precision", "recall", "kid" } do
      assert.is_number(made[key])
      assert.is_true(math.abs(made[key] - plain[key]) <= 1e-9 * math.abs(made[key]), key)
    end

    -- by hand
    local model = models.inception { weights = weights }
    model:load()
    local function moments(t)
      return frechet.moments((model(model:preprocess(ops.images(t, { scale = 1, offset = 0, dtype = "float32" })))))
    end
    local expected = frechet.distance(moments(npz.load(in_folder "real.npz", "arr_0")), moments(images))
    assert.is_true(math.abs(made.fid - expected) < 1e-4 * expected, ("%g, not %g"):format(made.fid, expected))

    -- what was there of an evaluation that was killed is not computed again: the same, though it holds zeros
    local network = require("perigee.metrics.feature_network").inception(weights)
    local source = require("perigee.metrics.picture_source").open(in_folder "samples.npz")
    local teacher = require "perigee.teacher"
    local part = ("%s/features/%s.npz"):format(in_folder "cache", teacher.digest(network.key .. "\n" .. source.key))
    assert.is_false(files.exists(part))
    local writer = npz.writer(part, { 4071 }, "float32")
    writer:append(ops.fill({ 5, 4071 }, { value = 0, dtype = "float32" }))
    writer:suspend()
    local zeros = evaluate(in_folder "samples.npz", in_folder "reference.npz")
    assert.is_true(zeros.fid > 2 * made.fid)
    assert.is_false(files.exists(part .. ".part"))
  end)

  it("evaluates a run's samples and writes them into its events", function()
    local weights = weights_at "weights.pth"
    pictures(in_folder "real.npz", 6, 1)
    assert.equal(0, (tiny.perigee(("train %s --total 3 --align 2 --runs %s --quiet"):format(tiny.path, in_folder()))))
    local run = in_folder "tiny"
    local status, output = perigee(("eval %s --count 6 --steps 2 --sampler euler --reference %s --inception %s "
      .. "--convention clean-fid --distances float32"):format(run, in_folder "real.npz", weights))
    assert.equal(0, status, output)
    local event
    for line in io.lines(run .. "/events.jsonl") do
      local one = json.decode(line)
      if one.event == "evaluation" then event = one end
    end
    assert.equal("inception clean-fid", event.name)
    assert.equal("float32", event.distances)
    assert.matches("^6: euler, 2 steps", event.samples)
    assert.matches("tiny +6 +" .. ("%.4f"):format(event.fid):gsub("%.", "%%."), output)
    assert.matches("clean%-fid against real.npz; precision, .* 6 pictures, distances in float32", output)
  end)

  it("compares on another encoder's features", function()
    pictures(in_folder "real.npz", 7, 1)
    pictures(in_folder "samples.npz", 6, 2)
    local teacher = oracle.path "haste_teacher.weights"
    local status, output = perigee(("eval %s --reference %s --encoder dinov2_vit_s_14:%s"):format(
      in_folder "samples.npz", in_folder "real.npz", teacher))
    assert.equal(1, status)
    assert.matches("haste_teacher", output)
    local model = models.dinov2_vit_s_14 { image = 28, stored = 2 }
    model:materialise { seed = 3 }
    require("perigee.io.weights").save(in_folder "small.safetensors", model, { names = "dinov2" })
    status, output = perigee(("eval %s --reference %s --encoder dinov2_vit_s_14:%s --json"):format(
      in_folder "samples.npz", in_folder "real.npz", in_folder "small.safetensors"))
    assert.equal(0, status, output)
    local result = json.decode(output)[1].result
    assert.equal("fd dinov2_vit_s_14", result.name)
    assert.is_nil(result.fid)
    assert.is_nil(result.inception_score)

    local hub_positions = require "perigee.metrics.hub_positions"
    local function moments(path)
      local images = ops.images(npz.load(path, "arr_0"), { scale = 1 / 255, offset = 0, dtype = "float32" })
      local large = models.dinov2_vit_s_14 { weights = in_folder "small.safetensors", image = 224,
        resize = { mode = "bicubic", antialias = true } }
      large:load()
      large.position, large.stored = hub_positions.resample(large.position, { 2, 2 }, { 16, 16 }), { 16, 16 }
      local _, extra = large:features(images, { class_token = true })
      return frechet.moments(extra.class_token)
    end
    local expected = frechet.distance(moments(in_folder "real.npz"), moments(in_folder "samples.npz"))
    assert.is_true(math.abs(result.fd - expected) < 1e-4 * expected, ("%g, not %g"):format(result.fd, expected))
  end)

  it("is an event of a run, which a policy may read, and changes nothing else", function()
    local weights = weights_at "weights.pth"
    pictures(in_folder "real.npz", 6, 1)
    local text = [[
local pg = require "perigee"
return pg.recipe {
  name = "NAME", ema = 0.5,
  student = pg.models.sit { depth = 1, width = 32, heads = 1, patch = 8, size = 32, channels = 3, classes = 8 },
  data = pg.data.shapes { batch = 4, count = 16 },
  stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.any(pg.stop.at_step(LAST),
    pg.stop.custom { name = "seen", needs = { pg.signal.metric { "fid", of = "inception adm", every = 1 } },
      function(event) return event["metric fid of inception adm"].value ~= nil end }) } },
  optim = pg.optim.adamw { lr = 3e-2 },
  every = { EVERY },
  evaluation = { inception = "WEIGHTS", reference = "REAL", count = 6, steps = 2, seed = 4 },
}]]
    local function train(name, last, every)
      local values = { NAME = name, LAST = last, EVERY = every, WEIGHTS = weights, REAL = in_folder "real.npz" }
      files.write(in_folder "recipe.lua", (text:gsub("%u%u%u+", values)))
      return perigee(("train %s --runs %s"):format(in_folder "recipe.lua", in_folder "runs"))
    end
    local status, output = train("with", "9", "eval = 2")
    assert.equal(0, status, output)
    local event
    for line in io.lines(in_folder "runs/with/events.jsonl") do
      local one = json.decode(line)
      if one.event == "evaluation" then event = one end
      assert.are_not.equal("warning", one.event, line)
    end
    assert.equal(2, event.step)
    assert.is_number(event.sfid)
    assert.matches("^6: euler, 2 steps, guidance 1 in 0:1, seed 4", event.samples)
    assert.matches(("step 2: FID %.4f"):format(event.fid), output, nil, true)
    assert.matches("step 3: stage train ends", output, nil, true)
    assert.is_false(files.exists(in_folder "runs/with/evaluation.npz"))

    status, output = train("without", "3", "")
    assert.equal(0, status, output)
    local function weights_of(name)
      local checkpoint = require "perigee.record.checkpoint"
      local _, file = checkpoint.open(in_folder("runs/" .. name))
      return checkpoint.digest(file, "student.")
    end
    assert.equal(weights_of "without", weights_of "with")

    files.remove(in_folder "real.npz")
    status, output = train("missing", "3", "eval = 2")
    assert.equal(1, status)
    assert.matches("recipe: evaluation: reference: no file ", output, nil, true)
    text = text:gsub("evaluation = %b{},", "")
    status, output = train("lacking", "3", "eval = 2")
    assert.equal(1, status)
    assert.matches("recipe: every.eval without `evaluation`", output, nil, true)
  end)

  it("says what is wrong before it computes", function()
    local function message(arguments)
      local status, output = perigee("eval " .. arguments)
      assert.equal(1, status, output)
      return output
    end
    files.write(in_folder "empty.npz", "no archive at all, but long enough to look for its directory")
    files.write(in_folder "w.pth", "no weights")
    local w = in_folder "w.pth"
    pictures(in_folder "real.npz", 6, 1)
    assert.matches("%-%-encoder need %-%-reference REF", message(in_folder "real.npz" .. " --inception " .. w))
    assert.matches("%-%-reference needs %-%-inception FILE", message(in_folder "real.npz" .. " --reference x"))
    assert.matches("real.npz: samples need %-%-reference REF, and %-%-inception FILE or", message(in_folder "real.npz"))
    assert.matches("%-%-convention is of %-%-inception; another encoder",
      message(in_folder "real.npz" .. " --reference x --encoder vit:x --convention clean-fid"))
    assert.matches("none.npz: no run, checkpoint or samples there",
      message(("none.npz --reference x --inception %s"):format(w)))
    assert.matches("w.pth", message(("%s --reference x --inception %s"):format(in_folder "real.npz", w)))
    local weights = weights_at "weights.pth"
    local function against(reference, samples)
      return message(("%s --reference %s --inception %s"):format(samples or in_folder "real.npz", reference, weights))
    end
    assert.matches("empty.npz", against(in_folder "empty.npz"))
    npz.save(in_folder "other.npz", function(add)
      add("mu", "float64", { 3 }, function(append) append(tensor.tensor({ 1, 2, 3 }, "float64")) end)
      add("sigma", "float64", { 3 }, function(append) append(tensor.tensor({ 1, 2, 3 }, "float64")) end)
    end)
    assert.matches("other.npz: 'mu' is %[3%] and 'sigma' is %[3%]; expected %[2048%] and %[2048,2048%]",
      against(in_folder "other.npz"))
    npz.save(in_folder "latents.npz", function(add)
      add("arr_0", "float32", { 2, 4, 2, 2 }, function(append) append(ops.fill({ 2, 4, 2, 2 }, { value = 0 })) end)
    end)
    local picture, png = ops.fill({ 4, 6, 3 }, { value = 7, dtype = "uint8" }), require "perigee.io.png"
    files.make_folder(in_folder "folder")
    png.save(in_folder "folder/a.png", picture)
    png.save(in_folder "folder/b.png", picture:transpose(1, 2):contiguous())
    assert.matches("folder/b.png: it has 4x6 pixels %(width x height%), a.png has 6x4; expected pictures of one size",
      against(in_folder "real.npz", in_folder "folder"))
    assert.matches("real.npz: %-%-size crops files of pictures, not arrays",
      against(in_folder "real.npz", in_folder "real.npz --size 4"))
    assert.matches("latents.npz: its array is float32 %[2,4,2,2%]; expected pictures, uint8 %[N,H,W,3%]",
      against(in_folder "latents.npz"))
  end)
end)
