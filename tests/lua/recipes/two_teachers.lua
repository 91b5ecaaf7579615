--- Two teachers of other widths and grids, each with losses of its own, one of them longer than the other.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "weights", "tests/oracle/fixtures/haste_teacher.weights.safetensors", "the first teacher's weights" },
  { "other", "tests/oracle/fixtures/encoder_deit.weights.safetensors", "the second's" },
  { "only", "", "wide or small: the recipe with that teacher alone, by no name" },
  { "cache", false, "keep what the losses read of the teachers" },
}

local function pictures()
  local state = pg.tensor({ 7, 0, 0 }, "int64")
  local images = (pg.ops.random_uniform({ 16, 16, 16, 3 }, { state = state, purpose = "pictures" }) * 255):to "uint8"
  local labels = {}
  for k = 1, 16 do labels[k] = k % 5 end
  return 16, { images = { tensor = images, augment = true }, labels = { tensor = pg.tensor(labels, "int64") } }
end

local wide = pg.models.vit {
  depth = 4, width = 30, heads = 3, patch = 4, image = 16, layer_scale = true, weights = o.weights,
}
local small = pg.models.vit { depth = 2, width = 24, heads = 2, patch = 4, image = { 12, 8 }, weights = o.other }

local function named(name) return o.only == "" and name or nil end
local denoise   = loss.flow_matching()
local features  = loss.feature_alignment   { name = "wide features", block = 2, hidden = 24, teacher = named "wide" }
local attention = loss.attention_alignment { student = { 2, 3 }, teacher = { 3, 4, of = named "wide" } }
local others    = loss.feature_alignment   { name = "small features", block = 1, hidden = 16, teacher = named "small" }
local gram      = loss.gram_alignment      { block = 3, teacher = named "small" }

local first = { { 1, denoise } }
if o.only ~= "small" then
  table.insert(first, { 0.5, features })
  table.insert(first, { 0.5, attention })
end
if o.only ~= "wide" then
  table.insert(first, { 0.25, others })
  table.insert(first, { 0.1, gram })
end

return pg.recipe {
  name     = "two-teachers",
  student  = pg.models.sit { depth = 3, width = 32, heads = 4, patch = 4, size = 16, channels = 3, classes = 5 },
  teacher  = o.only == "wide" and wide or o.only == "small" and small or nil,
  teachers = o.only == "" and { wide = wide, small = small } or nil,
  data     = pg.data.dataset {
    name = "noise", classes = 5, channels = 3, height = 16, width = 16, batch = 8, flip = true, find = pictures,
    image_size = 16,
  },
  optim    = pg.optim.adamw { lr = 1e-3 },
  ema      = 0.9,
  cache_teacher = o.cache,
  stages   = {
    { name = "both", losses = first, finish = stop.at_step(2) },
    { name = "small", losses = { { 1, denoise }, o.only ~= "wide" and { 0.25, others } or nil },
      finish = stop.at_step(4) },
    { name = "free", losses = { { 1, denoise } }, finish = stop.at_step(5) },
  },
  every    = { log = 1, checkpoint = 5 },
}
