--- The quickstart: no download, a few minutes on two processor cores.
---
--- It draws pictures of shapes and trains a small ViT on them as a classifier. Then HASTE: a SiT student learns to draw
--- such pictures, aligned with that teacher until denoising and alignment pull its weights in opposite directions, or
--- until a step, and after that alone.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "batch", 16, "images a step" },
  { "align", 700, "step at which the alignment ends at the latest" },
  { "total", 2400, "steps in all" },
}

local teacher = pg.recipe {
  name    = "shapes-teacher",
  student = pg.models.vit {
    depth = 3, width = 64, heads = 2, patch = 4, image = 32, classes = 8,
    mean = { 0.5, 0.5, 0.5 }, std = { 0.5, 0.5, 0.5 },
  },
  data    = pg.data.shapes { batch = 32, count = 16384, seed = 1 },
  optim   = pg.optim.adamw { lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1, warmup = 50, cooldown = { 400, 800 } },
  ema     = 0.9,

  stages = {
    { name = "classify", losses = { { 1.0, loss.classification() } }, finish = stop.at_step(800) },
  },

  every  = { log = 100, checkpoint = 400 },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.log_normal { mu = 0 } }
local features  = loss.feature_alignment   { block = 2, hidden = 256 }
local attention = loss.attention_alignment { student = { 2, 3 }, teacher = { 2, 3 } }

return pg.recipe {
  name    = "quickstart",
  student = pg.models.sit {
    depth = 4, width = 128, heads = 4, patch = 4, size = 32, channels = 3, classes = 8,
    drop_label = 0.1, label_deviation = 0.5, time_deviation = 0.08,
  },
  teacher = teacher,
  data    = pg.data.shapes { batch = o.batch, count = 16384, seed = 2 },
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
  sample = { count = 64, cfg = 3, sampler = "euler", steps = 25 },
}
