--- DiT-XL/2 (arXiv 2212.09748), ImageNet 256: a diffusion's noise with a learned variance.
--- Published: FID 2.27 with guidance 1.5 after 7M steps; 19.5 without at 400K.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data  = { default = "data/imagenet256", help = "folder of images/ and vae-sd/, as REPA's preprocessing makes it" },
  batch = { default = 256, help = "images a step" },
  micro = { default = 32, help = "images a pass; divides batch" },
}

return pg.recipe {
  name      = "dit-xl-2",
  precision = "bf16",
  student   = pg.models.dit_xl_2 { classes = 1000, drop_label = 0.1 },
  data      = pg.data.imagenet_latents { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0 },
  ema       = 0.9999,

  stages = {
    { name   = "train",
      losses = { { 1, loss.flow_matching { path = "diffusion", prediction = "noise" } },
                 { 1, loss.variational_bound() } },
      finish = stop.at_step(400000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 50000 },
  sample = { count = 16, cfg = 1.5, sampler = "ddpm", steps = 250 },
}
