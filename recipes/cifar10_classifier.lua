--- A judge for samples: a small ViT trained on CIFAR-10 as a classifier, so that a Fréchet distance can be taken on
--- features that are not the teacher's. `perigee eval RUN` says its accuracy on the test pictures, `--features RUN`
--- uses it.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "data", "data/cifar10", "CIFAR-10: a folder of .npy files, of binary batches, or of PNGs with a folder a class" },
  { "batch", 64, "images a step" },
  { "total", 1800, "steps in all" },
}

return pg.recipe {
  name    = "cifar10-classifier",
  student = pg.models.vit {
    depth = 5, width = 96, heads = 3, patch = 4, image = 32, classes = 10,
    mean = { 0.49, 0.48, 0.45 }, std = { 0.25, 0.24, 0.26 },
  },
  data    = pg.data.cifar10 { dir = o.data, batch = o.batch, flip = true, crop = 4 },
  test    = pg.data.cifar10 { dir = o.data, batch = o.batch, split = "test" },
  optim   = pg.optim.adamw { lr = 1e-3, decay = 0.05, clip = 1, warmup = 200, cooldown = { o.total / 2, o.total } },
  ema     = 0.99,

  stages = {
    { name = "classify", losses = { { 1.0, loss.classification() } }, finish = stop.at_step(o.total) },
  },

  every  = { log = 50, checkpoint = 500 },
}
