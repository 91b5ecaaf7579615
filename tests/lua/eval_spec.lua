-- Fréchet distances, the eigenvalues behind them, and `perigee eval`.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local frechet = require "perigee.metrics.frechet"
local json = require "perigee.io.json"
local oracle = require "tests.lua.oracle"
local symmetric = require "perigee.metrics.symmetric"
local tiny = require "tests.lua.tiny"

local ops, tensor = core.ops, core.tensor
local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function normal(shape, seed)
  return ops.random_normal(shape,
    { state = tensor.tensor({ seed, 0, 0 }, "int64"), purpose = "features", dtype = "float64" })
end

local function greatest(t) return t:abs():max():item() end

describe("the eigenvalues of a symmetric matrix", function()
  for _, n in ipairs { 1, 2, 3, 31, 33, 64 } do
    it(("have the sums of its powers (%d)"):format(n), function()
      local x = normal({ n, n }, n)
      local a = x + x:transpose(1, 2)
      local values, sums, power = symmetric.eigenvalues(a), { 0, 0, 0 }, a
      for p = 1, 3 do -- the trace of Aᵖ is the sum of the eigenvalues' p-th powers
        for k = 1, n do sums[p] = sums[p] + power:totable()[k][k] end
        local expected = (values ^ p):sum():item()
        assert.is_true(math.abs(sums[p] - expected) < 1e-12 * n * greatest(values) ^ p)
        power = ops.matmul(power, a)
      end
    end)
  end

  it("are those that are known", function()
    local n, rows = 40, {} -- second differences: 2 − 2·cos(kπ/(n + 1))
    for i = 1, n do
      rows[i] = {}
      for j = 1, n do rows[i][j] = i == j and 2 or math.abs(i - j) == 1 and -1 or 0 end
    end
    local values = symmetric.eigenvalues(tensor.tensor(rows, "float64")):totable()
    table.sort(values)
    for k = 1, n do assert.is_true(math.abs(values[k] - (2 - 2 * math.cos(k * math.pi / (n + 1)))) < 1e-13) end
  end)

  it("of matrices without full rank are found too", function()
    for _, t in ipairs { ops.fill({ 5, 5 }, { value = 0, dtype = "float64" }),
      ops.fill({ 40, 40 }, { value = 3, dtype = "float64" }) } do
      local values = symmetric.eigenvalues(t):totable()
      table.sort(values)
      local n = #values
      assert.is_true(math.abs(values[n] - (n == 40 and 120 or 0)) < 1e-12)
      for k = 1, n - 1 do assert.is_true(math.abs(values[k]) < 1e-12) end
    end
    assert.has_error(function() symmetric.eigenvalues(normal({ 2, 3 }, 1)) end,
      "eigenvalues: [2,3] is not a square matrix")
  end)
end)

describe("the root of a symmetric matrix", function()
  for _, case in ipairs { { 1, 1 }, { 2, 2 }, { 31, 31 }, { 33, 20 }, { 64, 3 } } do
    local n, rank = unpack(case)
    it(("times its transpose is the matrix (%d, rank %d)"):format(n, rank), function()
      local x = normal({ n, rank }, n)
      local a = ops.matmul(x, x:transpose(1, 2):contiguous())
      local root = symmetric.root(a)
      assert.same({ n, rank }, root.shape)
      assert.is_true(greatest(ops.matmul(root, root:transpose(1, 2):contiguous()) - a) < 1e-13 * n)
    end)
  end

  it("of zero is zero", function()
    assert.equal(0, greatest(symmetric.root(ops.fill({ 5, 5 }, { value = 0, dtype = "float64" }))))
  end)
end)

describe("the Fréchet distance", function()
  local fixture = oracle.load "frechet"
  for _, case in ipairs { "wide", "few", "graded", "two" } do
    it("is numpy's: " .. case, function()
      local a, b = frechet.moments(fixture[case .. ".a"]), frechet.moments(fixture[case .. ".b"])
      local expected = fixture[case .. ".distance"]:item()
      local bound = 1e-6 * math.abs(expected) -- numpy's own, where the product has no full rank
      assert.is_true(math.abs(frechet.distance(a, b) - expected) <= bound)
      assert.is_true(math.abs(frechet.distance(b, a) - expected) <= bound)
      assert.is_true(math.abs(frechet.distance(a, a)) <= bound)
    end)
  end

  it("is the same of features that come in pieces", function()
    local whole, sums = fixture["wide.a"]:to "float64", frechet.sums(33)
    for first = 1, 200, 64 do sums:add(whole:narrow(1, first, math.min(64, 201 - first)):contiguous() + 1e4) end
    local pieces, moments = sums:moments(), frechet.moments(whole)
    assert.equal(200, pieces.count)
    local bound = 2000 * 1e4 * 2 ^ -52 -- the rows' own rounding, with 1e4 added
    assert.is_true(greatest(pieces.mean - 1e4 - moments.mean) < bound)
    assert.is_true(greatest(pieces.covariance - moments.covariance) < bound)
    assert.has_error(function() frechet.sums(3):moments() end,
      "Fréchet distance: features of 0 pictures; expected 2 or more")
  end)

  it("of commuting covariances is known", function()
    local function gaussian(mean, variances)
      local rows = {}
      for i = 1, 3 do
        rows[i] = { 0, 0, 0 }
        rows[i][i] = variances[i]
      end
      return { count = 10, mean = tensor.tensor({ mean }, "float64"), covariance = tensor.tensor(rows, "float64") }
    end
    local value = frechet.distance(gaussian({ 0, 1, 2 }, { 4, 9, 0 }), gaussian({ 3, 1, 6 }, { 1, 25, 16 }))
    assert.is_true(math.abs(value - (9 + 16 + 1 + 4 + 16)) < 1e-7)
  end)

  it("has the moments of few rows by hand", function()
    local m = frechet.moments(tensor.tensor { { 1, 2 }, { 3, 6 }, { 5, 4 } })
    assert.same({ { 3, 4 } }, m.mean:totable())
    assert.same({ { 4, 2 }, { 2, 4 } }, m.covariance:totable())
    assert.has_error(function() frechet.moments(tensor.tensor { { 1, 2 } }) end,
      "Fréchet distance: features are [1,2]; expected [N,D] with N of 2 or more")
  end)

  it("is nearer to the truth at 1/N = 0", function()
    local width = 24
    local rows = {}
    for i = 1, width do
      rows[i] = {}
      for j = 1, width do rows[i][j] = i == j and 1 or 0 end
    end
    local truth = { count = 1, mean = ops.fill({ 1, width }, { value = 0, dtype = "float64" }),
      covariance = tensor.tensor(rows, "float64") }
    local sample = normal({ 600, width }, 5)
    local biased = frechet.distance(truth, frechet.moments(sample))
    local limit, slope = frechet.extrapolate(truth, sample)
    assert.is_true(biased > 0.15 and slope > 0)
    assert.is_true(math.abs(limit) < 0.25 * biased, ("%g and %g"):format(limit, biased))
    assert.is_nil(frechet.extrapolate(truth, normal({ 4 * width - 1, width }, 5)))
  end)
end)

describe("perigee eval", function()
  local function evaluations(folder)
    local list = {}
    for line in io.lines(folder .. "/events.jsonl") do
      local event = json.decode(line)
      if event.event == "evaluation" then list[#list + 1] = event end
    end
    return list
  end

  it("is the distance of the samples that perigee sample draws", function()
    assert.equal(0, (tiny.perigee(("train %s --total 3 --align 2 --runs %s --quiet"):format(tiny.path, in_folder()))))
    local run = in_folder "tiny"
    local pictures = tiny.recipe().data:open().sources.images.tensor
    require("perigee.io.npy").save(in_folder "other.npy", pictures:narrow(1, 1, 40):contiguous())
    local settings = ("%s --sampler euler --steps 3 --cfg 2 --seed 4 --labels drawn"):format(run)
    local status, output = tiny.perigee(("eval %s --count 60 --against %s"):format(settings, in_folder "other.npy"))
    assert.equal(0, status, output)
    os.execute(("ln -s tiny %s"):format(tiny.quote(in_folder "t\27[2J")))
    local _, escaped = tiny.perigee(("eval %s --count 60 --steps 1 --against %s"):format(
      tiny.quote(in_folder "t\27[2J"), in_folder "other.npy"))
    assert.matches("t\\x1B%[2J +3", escaped)
    assert.equal(2, #evaluations(run))
    files.rename(run .. "/events.jsonl", run .. "/moved")
    os.execute(("ln -s moved %s/events.jsonl"):format(run)) -- a log that can't be opened
    local code, without = tiny.perigee(("eval %s --count 60 --steps 1 --against %s"):format(run, in_folder "other.npy"))
    assert.equal(0, code, without)
    assert.matches("note: the result is not in the run's log: [^\n]*events%.jsonl: cannot be written", without)
    assert.matches("tiny +3 +%d", without)
    assert.equal(2, #evaluations(run))
    assert.is_nil(escaped:find("\27", 1, true))
    local event = evaluations(run)[1]
    assert.matches("60: euler, 3 steps, guidance 2 in 0:1, seed 4, labels drawn", event.samples)
    assert.equal("40 other.npy", event.against)
    assert.equal(3, event.step)
    assert.matches("tiny +3 +" .. ("%.3f"):format(event.distance):gsub("%.", "%%."), output)

    assert.equal(0, (tiny.perigee(("sample %s --count 60 --out %s"):format(settings, in_folder "samples"))))
    local parts = {}
    for k = 0, 59 do parts[k + 1] = require("perigee.io.png").load(("%s/%06d.png"):format(in_folder "samples", k)) end
    local teacher = tiny.recipe().teacher
    teacher:load {}
    local function features(images) -- [N,H,W,3] -> the class token, by the model alone
      local _, extra = teacher:features(ops.images(images, { scale = 1 / 255, offset = 0, dtype = "float32" }),
        { class_token = true })
      return frechet.moments(extra.class_token)
    end
    local expected = frechet.distance(features(pictures:narrow(1, 1, 40):contiguous()), features(ops.stack(parts, 1)))
    assert.is_true(math.abs(event.distance - expected) < 1e-4 * expected,
      ("%g, not %g"):format(event.distance, expected))
  end)

  it("counts the pictures whose largest logit is their label's", function()
    local model = { class_token = { dtype = "float32" },
      classify = function(_, pixels) return pixels:narrow(3, 1, 1):narrow(4, 1, 1):reshape { -1, 3 } end }
    local pictures = tensor.tensor({ 10, 20, 200, 5, 250, 30, 40, 2, 1, 0, 90, 91 }, "float32"):to "uint8"
    local labels = tensor.tensor({ 1, 1, 0, 2 }, "int64")
    local accuracy = require("perigee.metrics.judge").classify(model, pictures:reshape { 4, 1, 1, 3 }, labels, "cpu")
    assert.equal(0.75, accuracy)
  end)

  it("says a classifier's accuracy, whose features then judge", function()
    local folder = door.home .. "/tests/lua/recipes/coloured.lua"
    assert.equal(0, (tiny.perigee(("train %s --runs %s --quiet"):format(folder, in_folder()))))
    assert.equal(0, (tiny.perigee(("train %s --total 3 --align 2 --runs %s --quiet"):format(tiny.path, in_folder()))))
    local status, output = tiny.perigee(("eval %s"):format(in_folder "coloured"))
    assert.equal(0, status, output)
    assert.matches("coloured, step 30: 100%.0 %% of 70 test pictures right, cross%-entropy 0", output)
    status, output = tiny.perigee(("eval %s --count 70 --steps 2 --against train --features %s --features "
      .. "teacher"):format(in_folder "tiny",
      in_folder "coloured"))
    assert.equal(0, status, output)
    local list = evaluations(in_folder "tiny")
    assert.same({ "coloured", "teacher" }, { list[1].name, list[2].name })
    assert.matches("vit 8x8, 16 numbers", list[1].features)
    assert.is_number(list[1].limit) -- 70 samples are enough for 16 numbers, not for 30
    assert.is_nil(list[2].limit)
  end)

  it("says what it cannot compare", function()
    assert.equal(0, (tiny.perigee(("train %s --total 3 --align 2 --runs %s --quiet"):format(tiny.path, in_folder()))))
    local function message(arguments)
      local status, output = tiny.perigee("eval " .. arguments)
      assert.equal(1, status, output)
      return output
    end
    assert.matches("needs a run's folder", message "")
    local run = in_folder "tiny"
    assert.matches("names no `test` data; give %-%-against train or a %.npy file", message(run))
    assert.matches("expected test, train, or a %.npy file", message(run .. " --against elsewhere"))
    assert.matches("a sit is not an encoder: it has no features", message(run .. " --against train --features " .. run))
    assert.matches("%-%-count: 1 is too small, the least is 2", message(run .. " --count 1"))
    for wrong, answer in pairs { -- before any picture is judged
      ["--sampler foo"] = "unknown sampler 'foo'; expected one of ddim, ddpm, dopri5, euler, heun, sde",
      ["--labels 99"] = "%-%-labels 99: expected balanced, drawn, data, or numbers from 0 to 4",
      ["--features teacher --features none"] = "no run or checkpoint at none",
    } do
      assert.matches("^perigee: " .. answer, message(run .. " --against train " .. wrong))
    end
  end)
end)
