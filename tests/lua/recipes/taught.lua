--- A teacher that is a recipe itself, both in a few milliseconds a step.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "teach", 8, "steps of the teacher" },
  { "width", 32, "the teacher's width" },
  { "scale", 1.0, "of the teacher's own loss" },
}

local classification = loss.classification()
local scaled = loss.custom { name = "scaled", compute = function(_, context)
  return classification:compute(context) * 0.5
end }

local teacher = pg.recipe {
  name    = "taught-teacher",
  student = pg.models.vit { depth = 2, width = o.width, heads = 2, patch = 8, image = 32, classes = 8 },
  data    = pg.data.shapes { batch = 8, count = 64, seed = 1 },
  stages  = { { name = "classify", losses = { { 1.0, classification }, { o.scale, scaled } },
    finish = stop.at_step(o.teach) } },
  every   = { log = 100, checkpoint = 4 },
}

return pg.recipe {
  name    = "taught",
  student = pg.models.sit { depth = 2, width = 32, heads = 2, patch = 8, size = 32, channels = 3, classes = 8 },
  teacher = teacher,
  data    = pg.data.shapes { batch = 8, count = 64, seed = 2 },
  stages  = {
    { name = "align",
      losses = { { 1.0, loss.flow_matching() }, { 0.5, loss.feature_alignment { block = 1, hidden = 16 } } },
      finish = stop.at_step(2) },
    { name = "free", losses = { { 1.0, loss.flow_matching { name = "alone" } } }, finish = stop.at_step(4) },
  },
  sample = { count = 4, steps = 2 },
}
