--- HASTE (arXiv 2505.16792), SiT-B/2, ImageNet 256, ended by the paper's gradient-angle trigger or at 100K steps.
--- Published at 100K: FID 39.86 with a stop at 100K, 38.69 when the trigger stopped it at 80K.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data    = { default = "data/imagenet256", help = "folder of images/ and vae-sd/, as REPA's preprocessing makes it" },
  teacher = { default = "weights/dinov2_vitb14.safetensors", help = "DINOv2-B/14 weights" },
  batch   = { default = 256, help = "images a step" },
  micro   = { type = "integer", help = "images a pass, a divisor of batch (default: all, or what a GPU has room for)" },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = 5, hidden = 2048 }
local attention = loss.attention_alignment { student = { 3, 4, 5 }, teacher = { 8, 10, 12 } }

return pg.recipe {
  name      = "haste-sit-b-2",
  precision = "bf16",
  student   = pg.models.sit_b_2 { classes = 1000, drop_label = 0.1 },
  teacher   = pg.models.dinov2_vit_b_14 { weights = o.teacher },
  data      = pg.data.imagenet_latents { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0, clip = 1 },
  ema       = 0.9999,

  stages = {
    { name   = "align",
      losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.any(
        stop.gradient_angle {
          block = 5, time = { 0.02, 0.1, 0.5, 0.8 }, images = 2048,
          from = 50000, every = 10000, below = -0.05,
        },
        stop.at_step(100000)) },
    { name   = "free",
      losses = { { 1.0, denoise } },
      finish = stop.at_step(150000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 10000 },
  sample = { count = 16, sampler = "sde", steps = 250 },
}
