--- Termination on the quickstart's pictures: its data, teacher, student and optimiser, at a constant learning rate,
--- with every signal on. `ends` ends the alignment at a step; 0: it lasts to the end. The attention alignment compares
--- blocks 1 and 2, so that the features' block 2 is the last that is aligned, as in the paper.
local pg = require "perigee"
local loss, signal, stop = pg.loss, pg.signal, pg.stop

local o = pg.options {
  { "ends", 0, "step at which the alignment ends; 0: at none" },
  { "total", 2400, "steps in all" },
  { "streams", 25, "steps between readings" },
  { "checkpoint", 200, "steps between checkpoints; all are kept" },
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
  stages  = {
    { name = "classify", losses = { { 1.0, loss.classification() } }, finish = stop.at_step(800) },
  },
  every   = { log = 100, checkpoint = 400 },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = 2, hidden = 256 }
local attention = loss.attention_alignment { student = { 1, 2 }, teacher = { 2, 3 } }

local angles = {
  signal.stream_angle { every = o.streams },
  signal.loss_by_time { "denoise", every = o.streams },
  signal.loss_by_time { "features", every = o.streams },
  signal.gradient_angle { name = "angle of the averages", block = 2, images = 64, from = 100, every = 100, ema = true },
}
for _, decay in ipairs { 0.8, 0.95 } do
  angles[#angles + 1] = signal.holistic_angle { name = "holistic angle " .. decay, decay = decay, from = o.streams,
    every = o.streams }
end

local stages = { {
  name = "align", losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
  finish = stop.at_step(o.ends > 0 and o.ends or o.total), signals = angles,
} }
if o.ends > 0 then
  stages[2] = { name = "free", losses = { { 1.0, denoise } }, finish = stop.at_step(o.total),
    signals = { signal.loss_by_time { "denoise", every = o.streams } } }
end

return pg.recipe {
  name    = "shapes",
  student = pg.models.sit {
    depth = 4, width = 128, heads = 4, patch = 4, size = 32, channels = 3, classes = 8,
    drop_label = 0.1, label_deviation = 0.5, time_deviation = 0.08,
  },
  teacher = teacher,
  data    = pg.data.shapes { batch = 16, count = 16384, seed = 2 },
  optim   = pg.optim.adamw { lr = 1e-3, betas = { 0.9, 0.99 }, clip = 1, warmup = 50 },
  ema     = 0.995,
  stages  = stages,
  every   = { log = 25, checkpoint = o.checkpoint },
  keep    = 1000,
  sample  = { count = 64, cfg = 1, sampler = "euler", steps = 25 },
}
