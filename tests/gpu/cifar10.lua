--- The recipe that tests/gpu/run trains: HASTE on 32×32 pictures in two stages, every step logged. CIFAR-10 where a
--- folder is given, else the drawn shapes; the teacher's weights come from a file (tests/gpu/teacher.lua makes random
--- ones).
local pg = require "perigee"
local loss, signal, stop = pg.loss, pg.signal, pg.stop

local o = pg.options {
  { "data", "", "CIFAR-10, as recipes/cifar10.lua takes it; none: shapes" },
  { "teacher", "", "the teacher's weights, timm names" },
  { "size", "small", "small (recipes/cifar10.lua's student and teacher) or tiny, to rehearse" },
  { "batch", 32, "images a step" },
  { "micro", 32, "images a pass; divides batch" },
  { "precision", "float32", "float32 or bf16" },
  { "align", 40, "step at which the alignment ends" },
  { "total", 60, "steps in all" },
  { "angle", 10, "steps between measurements of the gradient angle; 0: none" },
  { "checkpoint", 10, "steps between checkpoints" },
}

local sizes = {
  small = {
    student = { depth = 8, width = 192, heads = 3, patch = 4 }, teacher = pg.models.vit_tiny_patch16_224,
    block = 4, hidden = 768, layers = { student = { 3, 4 }, teacher = { 8, 11 } },
  },
  tiny = {
    student = { depth = 2, width = 32, heads = 2, patch = 8 },
    teacher = function(options)
      options.depth, options.width, options.heads, options.patch, options.image = 2, 32, 2, 8, 32
      return pg.models.vit(options)
    end,
    block = 2, hidden = 24, layers = { student = { 1, 2 }, teacher = { 1, 2 } },
  },
}
local size = sizes[o.size]
local model = size.student
model.size, model.channels, model.classes, model.drop_label = 32, 3, 10, 0.1

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = size.block, hidden = size.hidden }
local attention = loss.attention_alignment(size.layers)

-- the policy of the paper, with a threshold that is not reached: every run has the same steps
local finish, signals = stop.at_step(o.align), {}
if o.angle > 0 then
  signals = {
    signal.stream_angle { every = o.angle }, signal.loss_by_time { "denoise", every = o.angle },
    signal.loss_by_time { "features", every = o.angle },
    signal.holistic_angle { from = o.angle, every = o.angle },
    signal.alignment_progress { from = o.angle, every = o.angle },
    signal.average_distance { every = o.angle },
  }
  finish = stop.any(stop.gradient_angle { block = size.block, time = { 0.1, 0.5 }, images = o.batch,
                                          from = o.angle, every = o.angle, below = -1.5 }, finish)
end

return pg.recipe {
  name      = "gpu-cifar10",
  precision = o.precision,
  student   = pg.models.sit(model),
  teacher   = size.teacher { weights = o.teacher },
  data      = o.data ~= "" and pg.data.cifar10 { dir = o.data, batch = o.batch, flip = true }
              or pg.data.shapes { batch = o.batch, count = 512, seed = 1 },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 5e-4, clip = 1, warmup = 10 },
  ema       = 0.99,

  stages = {
    { name = "align", losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } }, finish = finish,
      signals = signals },
    { name = "free", losses = { { 1.0, denoise } }, finish = stop.at_step(o.total) },
  },

  every  = { log = 1, checkpoint = o.checkpoint },
  sample = { count = 4, sampler = "euler", steps = 2 },
}
