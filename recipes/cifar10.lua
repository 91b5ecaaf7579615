--- HASTE on CIFAR-10 in pixels: a small SiT aligned with a pretrained ViT-Tiny, sized so that a thousand steps are
--- practical on two processor cores.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "data", "data/cifar10", "CIFAR-10: a folder of .npy files, of binary batches, or of PNGs with a folder a class" },
  { "teacher", "weights/vit_tiny_patch16_224.safetensors", "ViT-Tiny/16 weights, timm names" },
  { "batch", 32, "images a step" },
  { "micro", 32, "images a pass; divides batch" },
  { "model", "small", "small (8 blocks of width 192, patch 4), or s_2, s_4, b_2, ... for SiT's own sizes" },
  { "align", 600, "step at which the alignment ends at the latest" },
  { "total", 1000, "steps in all" },
  { "cache", false, "keep what the losses read of the teacher on disk: pays from the third pass over the data on" },
}

local student
if o.model == "small" then
  student = pg.models.sit {
    depth = 8, width = 192, heads = 3, patch = 4, size = 32, channels = 3, classes = 10, drop_label = 0.1,
  }
else
  student = pg.models["sit_" .. o.model] { size = 32, channels = 3, classes = 10, drop_label = 0.1 }
end
local middle = math.floor(student.depth / 2)

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = middle, hidden = 768 }
local attention = loss.attention_alignment { student = { middle - 1, middle }, teacher = { 8, 11 } }

return pg.recipe {
  name    = "cifar10",
  student = student,
  teacher = pg.models.vit_tiny_patch16_224 { weights = o.teacher },
  data    = pg.data.cifar10 { dir = o.data, batch = o.batch, flip = true },
  test    = pg.data.cifar10 { dir = o.data, batch = o.batch, split = "test" },
  micro   = o.micro,
  cache_teacher = o.cache,
  optim   = pg.optim.adamw { lr = 5e-4, clip = 1, warmup = 50 },
  ema     = 0.995,

  stages = {
    { name   = "align",
      losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.any(
        stop.gradient_angle { block = middle, images = 128, from = 200, every = 100, below = -0.05 },
        stop.at_step(o.align)) },
    { name   = "free",
      losses = { { 1.0, denoise } },
      finish = stop.at_step(o.total) },
  },

  every  = { log = 20, checkpoint = 200 },
  sample = { count = 40, cfg = 2, sampler = "heun", steps = 25 },
}
