--- REPA (arXiv 2410.06940), SiT-XL/2, ImageNet 256: feature alignment from the first step to the last.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data    = { default = "data/imagenet256", help = "folder of images/ and vae-sd/, as REPA's preprocessing makes it" },
  teacher = { default = "weights/dinov2_vitb14.safetensors", help = "DINOv2-B/14 weights" },
  batch   = { default = 256, help = "images a step" },
  micro   = { type = "integer", help = "images a pass, a divisor of batch (default: all, or what a GPU has room for)" },
}

local denoise  = loss.flow_matching     { path = "linear", time = pg.time.uniform() }
local features = loss.feature_alignment { block = 8, hidden = 2048 }

return pg.recipe {
  name      = "repa-sit-xl-2",
  precision = "bf16",
  student   = pg.models.sit_xl_2 { classes = 1000, drop_label = 0.1 },
  teacher   = pg.models.dinov2_vit_b_14 { weights = o.teacher },
  data      = pg.data.imagenet_latents { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0, clip = 1 },
  ema       = 0.9999,

  stages = {
    { name = "align", losses = { { 1.0, denoise }, { 0.5, features } }, finish = stop.at_step(400000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 50000 },
  sample = { count = 16, cfg = 1.8, interval = { 0, 0.7 }, sampler = "sde", steps = 250 },
}
