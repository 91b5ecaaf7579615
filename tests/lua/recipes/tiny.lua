--- HASTE in a few milliseconds a step: 16×16 pictures of noise, the fixtures' teacher, a student of three blocks.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "weights", "tests/oracle/fixtures/haste_teacher.weights.safetensors", "the teacher's weights" },
  { "batch", 8, "images a step" },
  { "micro", 8, "images a pass" },
  { "align", 6, "step at which the alignment ends" },
  { "total", 12, "steps in all" },
  { "lr", 1e-3, "learning rate" },
  { "optim", "adamw", "the optimiser" },
  { "width", 32, "the student's width" },
  { "depth", 3, "the student's blocks" },
  { "checkpoint", 4, "steps between checkpoints" },
  { "keep", 3, "checkpoints kept" },
  { "recompute", false, "compute blocks again in the backward pass" },
  { "precision", "float32", "float32, bf16 or float64" },
  { "angle", false, "measure the gradient angle too" },
  { "angle_ema", false, "and at the moving averages of the weights" },
  { "cache", false, "keep what the losses read of the teacher" },
  { "kept", "", "precision of what is kept" },
  { "limit", 16, "the cache's files of a run, in GiB at the most" },
  { "crop", 0, "pixels that pictures are shifted by" },
  { "flip", true, "mirror pictures" },
}

local function pictures()
  local count = math.max(64, o.batch)
  local state = pg.tensor({ 7, 0, 0 }, "int64")
  local images = (pg.ops.random_uniform({ count, 16, 16, 3 }, { state = state, purpose = "pictures" }) * 255):to "uint8"
  local labels = {}
  for k = 1, count do labels[k] = k % 5 end
  return count, { images = { tensor = images, augment = true }, labels = { tensor = pg.tensor(labels, "int64") } }
end

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = 2, hidden = 24 }
local attention = loss.attention_alignment { student = { 2, 3 }, teacher = { 3, 4 } }

-- ends by its own state: after the third step whose features loss is within 2 % of the best, or at `align`
local patient = stop.custom { name = "patient", needs = { pg.signal.loss { "features" } },
  function(event, state)
    local best = math.min(state.best or 1e30, event.features)
    local count = (state.count or 0) + (event.features > best + 0.02 * math.abs(best) and 1 or 0)
    return count >= 1000, { best = best, count = count, seen = { event.step, event.features } }
  end }
local stops = { patient, stop.at_step(o.align) }
if o.angle then
  table.insert(stops, 1, stop.gradient_angle {
    block = 2, time = { 0.1, 0.5 }, images = 16, from = 2, every = 2, below = -1.5, ema = o.angle_ema,
  })
end

return pg.recipe {
  name      = "tiny",
  precision = o.precision,
  student   = pg.models.sit {
    depth = o.depth, width = o.width, heads = 4, patch = 4, size = 16, channels = 3, classes = 5,
    drop_label = 0.2, recompute = o.recompute,
  },
  teacher   = pg.models.vit {
    depth = 4, width = 30, heads = 3, patch = 4, image = 16, layer_scale = true, weights = o.weights,
  },
  data      = pg.data.dataset {
    name = "noise", classes = 5, channels = 3, height = 16, width = 16, batch = o.batch, flip = o.flip, crop = o.crop,
    find = pictures, image_size = 16,
  },
  micro     = o.micro,
  optim     = pg.optim[o.optim] { lr = o.lr, clip = 1, warmup = 3 },
  ema       = 0.9,
  keep      = o.keep,
  cache_teacher = o.cache and { precision = o.kept ~= "" and o.kept or nil, limit_gib = o.limit },

  stages = {
    { name = "align",
      losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.any(unpack(stops)) },
    { name = "free", losses = { { 1.0, denoise } }, finish = stop.at_step(o.total) },
  },

  every = { log = 2, checkpoint = o.checkpoint },
}
