--- A run of a second or so: a tiny student beside a tiny teacher, on shapes drawn here.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop
local o = pg.options { { "align", 30, "steps with a teacher" }, { "total", 40, "steps in all" },
  { "checkpoint", 10, "steps between" }, { "optim", "adamw", "the optimiser" } }
local denoise = loss.flow_matching {}
return pg.recipe {
  name = "tiny",
  student = pg.models.sit { depth = 2, width = 32, heads = 2, patch = 8, size = 32, channels = 3, classes = 8,
    drop_label = 0.1 },
  teacher = pg.recipe {
    name = "tiny-teacher",
    student = pg.models.vit { depth = 2, width = 32, heads = 2, patch = 8, image = 32, classes = 8 },
    data = pg.data.shapes { batch = 4, count = 64 },
    stages = { { name = "classify", losses = { { 1, loss.classification() } }, finish = stop.at_step(2) } },
  },
  data = pg.data.shapes { batch = 4, count = 64 },
  optim = pg.optim[o.optim] { lr = 1e-3 },
  ema = 0.9,
  stages = {
    { name = "align", finish = stop.at_step(o.align),
      losses = { { 1, denoise }, { 0.5, loss.feature_alignment { block = 1, hidden = 32 } },
                 { 0.5, loss.attention_alignment { student = { 1, 2 }, teacher = { 1, 2 } } } } },
    { name = "free", losses = { { 1, denoise } }, finish = stop.at_step(o.total) },
  },
  every = { log = 10, checkpoint = o.checkpoint },
  sample = { count = 4, steps = 2 },
}
