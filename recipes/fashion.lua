--- HASTE on real pictures: Fashion-MNIST, 28×28 grey pictures of clothes, which Debian and Ubuntu package:
---
---   sudo apt-get install dataset-fashion-mnist
---   perigee train recipes/fashion.lua
---
--- No other download; some minutes on two processor cores. A small ViT is trained first, as a classifier of the same
--- pictures, and is the teacher.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "data", "/usr/share/datasets/fashion-mnist", "the folder of Fashion-MNIST's IDX files" },
  { "batch", 16, "images a step" },
  { "align", 700, "step at which the alignment ends at the latest" },
  { "total", 2400, "steps in all" },
}

local function clothes(options)
  options.dir = o.data
  return pg.data.fashion_mnist(options)
end

local teacher = pg.recipe {
  name    = "fashion-teacher",
  student = pg.models.vit {
    depth = 3, width = 64, heads = 2, patch = 4, image = 28, channels = 1, classes = 10, mean = { 0.5 }, std = { 0.5 },
  },
  data    = clothes { batch = 32, flip = true },
  test    = clothes { batch = 32, split = "test" },
  optim   = pg.optim.adamw { lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1, warmup = 50, cooldown = { 600, 1200 } },
  ema     = 0.9,

  stages = {
    { name = "classify", losses = { { 1.0, loss.classification() } }, finish = stop.at_step(1200) },
  },

  every  = { log = 100, checkpoint = 400 },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.log_normal { mu = 0 } }
local features  = loss.feature_alignment   { block = 2, hidden = 256 }
local attention = loss.attention_alignment { student = { 2, 3 }, teacher = { 2, 3 } }

return pg.recipe {
  name    = "fashion",
  student = pg.models.sit {
    depth = 4, width = 128, heads = 4, patch = 4, size = 28, channels = 1, classes = 10,
    drop_label = 0.1, label_deviation = 0.5, time_deviation = 0.08,
  },
  teacher = teacher,
  data    = clothes { batch = o.batch, flip = true },
  test    = clothes { batch = o.batch, split = "test" },
  optim   = pg.optim.adamw {
    lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1,
    warmup = 50, cooldown = { o.total * 0.6, o.total },
  },
  ema     = 0.995,

  stages = {
    { name   = "align",
      losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.any(
        stop.gradient_angle { block = 2, images = 64, from = 200, every = 50, below = 0 },
        stop.at_step(o.align)) },
    { name   = "free",                     -- names no teacher loss: the teacher is gone
      losses = { { 1.0, denoise } },
      finish = stop.at_step(o.total) },
  },

  every  = { log = 50, checkpoint = 500 },
  sample = { count = 100, cfg = 2, sampler = "euler", steps = 25 },
}
