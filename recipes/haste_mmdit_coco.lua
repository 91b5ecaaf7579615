--- HASTE (arXiv 2505.16792) on MMDiT (arXiv 2403.03206), MS-COCO 256, text to picture.
--- Published: FID 4.10 at 250K steps with guidance 3.5, 4.06 with the end at 200K; REPA 4.28.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  data    = { default = "data/coco256", help = "folder that `perigee prepare coco` or U-ViT's tools made" },
  teacher = { default = "weights/dinov2_vitb14.safetensors", help = "DINOv2-B/14 weights" },
  batch   = { default = 256, help = "images a step" },
  micro   = { default = 32, help = "images a pass; divides batch" },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = 8, hidden = 2048 }
local attention = loss.attention_alignment { student = { 5, 6, 7, 8 }, teacher = { 9, 10, 11, 12 }, heads = 12 }

return pg.recipe {
  name      = "haste-mmdit-coco",
  precision = "bf16",
  student   = pg.models.mmdit { empty = o.data .. "/empty_context.npy", drop = 0.1 },
  teacher   = pg.models.dinov2_vit_b_14 { weights = o.teacher },
  data      = pg.data.coco { dir = o.data, batch = o.batch },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-4, betas = { 0.9, 0.999 }, decay = 0, clip = 1 },
  ema       = 0.9999,

  stages = {
    { name   = "align",
      losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.at_step(200000) },
    { name   = "free",
      losses = { { 1.0, denoise } },
      finish = stop.at_step(250000) },
  },

  every  = { log = 100, sample = 20000, checkpoint = 50000 },
  sample = { count = 16, cfg = 3.5, sampler = "sde", steps = 250 },
}
