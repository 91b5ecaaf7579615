--- What the specs here train: pictures in a folder, a teacher from a file whose features are cached, two stages,
--- previews; all that touches a disk, in a fraction of a second.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options { { "folder", "", "where the data and the teacher are" }, { "align", 3, "steps with the teacher" },
  { "total", 4, "steps in all" }, { "previews", 2, "steps between previews" }, { "checkpoints", 1, "and checkpoints" },
  { "logs", 1, "and lines of the log" } }

return pg.recipe {
  name    = "faults",
  student = pg.models.sit { depth = 1, width = 32, heads = 4, patch = 4, size = 16, channels = 3, classes = 2 },
  teacher = pg.models.vit { depth = 4, width = 30, heads = 3, patch = 4, image = 16, layer_scale = true,
                            weights = o.folder .. "/teacher.safetensors" },
  data    = pg.data.folder { dir = o.folder .. "/data", classes = 2, size = 16, batch = 4 },
  optim   = pg.optim.adamw { lr = 1e-3 },
  ema     = 0.9,
  keep    = 2,
  cache_teacher = {},
  stages  = {
    { name = "align",
      losses = { { 1, loss.flow_matching() }, { 1, loss.feature_alignment { block = 1, hidden = 24 } } },
      finish = stop.at_step(o.align) },
    { name = "free", losses = { { 1, loss.flow_matching() } }, finish = stop.at_step(o.total) },
  },
  sample  = { count = 4, steps = 1 },
  every   = { log = o.logs, checkpoint = o.checkpoints, sample = o.previews },
}
