--- SiT-XL/2 (arXiv 2401.08740), ImageNet 256: flow matching alone: the baseline of the aligned recipes.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data  = { default = "data/imagenet256", help = "folder of images/ and vae-sd/, as REPA's preprocessing makes it" },
  batch = { default = 256, help = "images a step" },
  micro = { type = "integer", help = "images a pass, a divisor of batch (default: all, or what a GPU has room for)" },
}

return pg.recipe {
  name      = "sit-xl-2",
  precision = "bf16",
  student   = pg.models.sit_xl_2 { classes = 1000, drop_label = 0.1 },
  data      = pg.data.imagenet_latents { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0, clip = 1 },
  ema       = 0.9999,

  stages = {
    { name   = "train",
      losses = { { 1.0, loss.flow_matching { path = "linear", time = pg.time.uniform() } } },
      finish = stop.at_step(400000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 50000 },
  sample = { count = 16, cfg = 1.5, sampler = "sde", steps = 250 },
}
