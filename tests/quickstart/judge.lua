--- Judges a quickstart run: a classifier that has seen neither the samples nor the run's pictures is trained on other
--- shapes and asked what 500 samples show; and the training pictures nearest to some samples are laid beside them.
---
---   ./perigee run tests/quickstart/judge.lua RUN [COUNT]
---
--- Prints the classifier's own accuracy on pictures it never saw, the share of samples recognised as the class asked
--- for, and the distances to the nearest training pictures; writes RUN/samples/neighbours.png.
local pg = require "perigee"
local generate = require "perigee.sampling.generate"
local grid = require "perigee.sampling.grid"
local restore = require "perigee.sampling.restore"
local sampling = require "perigee.recipe.sampling"
local training = require "perigee.train"

local ops, tensor = pg.ops, require "perigee.core.tensor"
local M = {}

local function judge_recipe()
  return pg.recipe {
    name    = "judge",
    student = pg.models.vit { depth = 3, width = 64, heads = 2, patch = 4, image = 32, classes = 8,
      mean = { 0.5, 0.5, 0.5 }, std = { 0.5, 0.5, 0.5 } },
    data    = pg.data.shapes { batch = 32, count = 24576, seed = 101 },
    optim   = pg.optim.adamw { lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1, warmup = 50, cooldown = { 500, 1200 } },
    ema     = 0.9,
    stages  = { { name = "classify", losses = { { 1.0, pg.loss.classification() } }, finish = pg.stop.at_step(1200) } },
  }
end

--- Trains the classifier; returns a function from pictures (uint8 [B,32,32,3], B = 100) to classes (int64 [B]).
function M.classifier()
  local recipe = judge_recipe()
  local run = training.train(recipe, { quiet = true })
  local classify = pg.compile(function(images)
    return recipe.student:classify(ops.images(images, { scale = 1 / 255, offset = 0 })):argmax(2)
  end, { tensor.empty({ 100, 32, 32, 3 }, "uint8") })
  return classify, run
end

--- Share of pictures (in hundreds) that are recognised as their labels say.
function M.accuracy(classify, images, labels)
  local right, n = 0, images.shape[1]
  local wanted = labels:totable()
  for first = 1, n - 99, 100 do
    local found = classify(images:narrow(1, first, 100):contiguous()):totable()
    for k = 1, 100 do right = right + (found[k] == wanted[first + k - 1] and 1 or 0) end
  end
  return right / (math.floor(n / 100) * 100)
end

--- Samples of a run, uint8 [count,32,32,3], and their labels.
function M.samples(path, count)
  local recipe, state = restore.open(path)
  local images, labels = {}, {}
  local settings = sampling.settings("sample", { count = count, seed = 1234 }, recipe.student, recipe.sample,
    recipe:path())
  generate.each(recipe, settings, { batch = 100 }, function(_, pictures, numbers)
    images[#images + 1], labels[#labels + 1] = pictures:clone(), numbers:clone()
  end)
  return ops.concat(images, 1), ops.concat(labels, 1), recipe, state
end

--- Root mean square difference, of pixels in [0, 1], between each sample and its nearest training picture, and that
--- picture's number: two lists.
function M.nearest(samples, pictures)
  local function flat(x) return ops.cast(x:reshape { x.shape[1], -1 }, "float32") / 255 end
  local a, b = flat(samples), flat(pictures)
  local width = a.shape[2]
  local square = a:square():sum(2):unsqueeze(2) + b:square():sum(2):unsqueeze(1) - ops.matmul(a, b,
    { transpose_b = true }) * 2
  local nearness = square * -1
  local which, least = nearness:argmax(2):totable(), nearness:max(2):totable()
  local distances = {}
  for k, value in ipairs(least) do distances[k] = math.sqrt(math.max(0, -value) / width) end
  return distances, which
end

--- Everything about a run, in a table.
function M.judge(path, count)
  local classify = M.classifier()
  local held_out = pg.data.shapes({ batch = 1, count = 2000, seed = 202 }):open()
  local own = M.accuracy(classify, held_out.sources.images.tensor, held_out.sources.labels.tensor)
  local images, labels, recipe = M.samples(path, count)
  local share = M.accuracy(classify, images, labels)
  local training_pictures = recipe.data:open().sources.images.tensor
  local few = images:narrow(1, 1, 16):contiguous()
  local distances, which = M.nearest(few, training_pictures)
  local beside = { few }
  local neighbours = {}
  for k = 1, 16 do neighbours[k] = training_pictures:narrow(1, which[k] + 1, 1) end
  beside[2] = ops.concat(neighbours, 1)
  local picture = path .. "/samples/neighbours.png"
  pg.save_png(picture, grid.join(ops.concat(beside, 1), 16))
  -- how near pictures that are no copies come: other shapes against the same training pictures
  local others = M.nearest(held_out.sources.images.tensor:narrow(1, 1, 16):contiguous(), training_pictures)
  table.sort(distances)
  table.sort(others)
  return { classifier = own, recognised = share, nearest = distances, nearest_of_new = others, picture = picture }
end

if arg and arg[0] and arg[0]:match "judge%.lua$" and arg[1] then
  local result = M.judge(arg[1], tonumber(arg[2] or 500))
  print(("classifier on new pictures: %.1f %%"):format(100 * result.classifier))
  print(("samples recognised as asked for: %.1f %%"):format(100 * result.recognised))
  print(("nearest training picture: rms %.3f at least, median %.3f (new pictures of the same kind: %.3f, %.3f)"):format(
    result.nearest[1], result.nearest[8], result.nearest_of_new[1], result.nearest_of_new[8]))
  print("side by side: " .. result.picture)
end

return M
