--- The judge of docs/experiments/shapes.lua: a classifier of other shapes than those the runs and their teacher see.
---   ./perigee train docs/experiments/shapes_judge.lua
local pg = require "perigee"

return pg.recipe {
  name    = "shapes-judge",
  student = pg.models.vit {
    depth = 3, width = 64, heads = 2, patch = 4, image = 32, classes = 8,
    mean = { 0.5, 0.5, 0.5 }, std = { 0.5, 0.5, 0.5 },
  },
  data    = pg.data.shapes { batch = 32, count = 24576, seed = 101 },
  test    = pg.data.shapes { batch = 32, count = 2000, seed = 202 },
  optim   = pg.optim.adamw { lr = 3e-3, betas = { 0.9, 0.99 }, clip = 1, warmup = 50, cooldown = { 500, 1200 } },
  ema     = 0.9,
  stages  = { { name = "classify", losses = { { 1.0, pg.loss.classification() } }, finish = pg.stop.at_step(1200) } },
  every   = { log = 100 },
}
