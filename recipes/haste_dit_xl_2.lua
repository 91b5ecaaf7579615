--- HASTE (arXiv 2505.16792) on DiT-XL/2 (arXiv 2212.09748), ImageNet 256: blocks, weights and end as for SiT-XL/2, for
--- which they are published.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data    = { default = "data/imagenet256", help = "folder of images/ and vae-sd/, as REPA's preprocessing makes it" },
  teacher = { default = "weights/dinov2_vitb14.safetensors", help = "DINOv2-B/14 weights" },
  batch   = { default = 256, help = "images a step" },
  micro   = { default = 32, help = "images a pass; divides batch" },
}

local denoise   = loss.flow_matching       { path = "diffusion", prediction = "noise" }
local variance  = loss.variational_bound()
local features  = loss.feature_alignment   { block = 8, hidden = 2048 }
local attention = loss.attention_alignment { student = { 5, 6, 7, 8 }, teacher = { 9, 10, 11, 12 }, heads = 12 }

return pg.recipe {
  name      = "haste-dit-xl-2",
  precision = "bf16",
  student   = pg.models.dit_xl_2 { classes = 1000, drop_label = 0.1 },
  teacher   = pg.models.dinov2_vit_b_14 { weights = o.teacher },
  data      = pg.data.imagenet_latents { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0 },
  ema       = 0.9999,

  stages = {
    { name   = "align",
      losses = { { 1, denoise }, { 1, variance }, { 0.5, features }, { 0.5, attention } },
      finish = stop.at_step(250000) },
    { name   = "free",
      losses = { { 1, denoise }, { 1, variance } },
      finish = stop.at_step(400000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 50000 },
  sample = { count = 16, cfg = 1.5, sampler = "ddpm", steps = 250 },
}
