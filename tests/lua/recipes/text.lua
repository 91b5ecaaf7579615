--- A student that takes text [3,6], a place [2], token numbers [2] and labels: 8×8 pictures of noise.
local pg = require "perigee"
local nn, ops, loss, stop = pg.nn, pg.ops, pg.loss, pg.stop

local o = pg.options {
  { "batch", 4, "images a step" },
  { "micro", 4, "images a pass" },
  { "total", 6, "steps in all" },
  { "precision", "float32", "float32, bf16 or float64" },
  { "drop", 0.5, "share of the texts that training drops" },
  { "cfg", 1, "guidance scale" },
  { "teacher", false, "align with a teacher too, and measure the angle" },
  { "weights", "tests/oracle/fixtures/haste_teacher.weights.safetensors", "the teacher's weights" },
  { "cache", false, "keep what the losses read of the teacher" },
}

local TEXT = { 3, 6 }

local Block = nn.class "text block"
function Block:build(width)
  self.query, self.key, self.value = nn.linear(width, width), nn.linear(TEXT[2], width), nn.linear(TEXT[2], width)
  self.mlp = nn.mlp(width, 2 * width)
end
function Block:forward(h, text) -- [B,N,D], [B,L,E] -> [B,N,D]
  local logits = ops.matmul(self.query(h), self.key(text):transpose(2, 3)) * (1 / math.sqrt(h.shape[3]))
  h = h + ops.matmul(ops.softmax(logits, -1), self.value(text))
  return h + self.mlp(h)
end

local Reader = nn.class "reader"
function Reader:build(width)
  self.name = "reader"
  self.channels, self.size, self.grid, self.width, self.depth = 3, { 8, 8 }, { 4, 4 }, width, 2
  self.classes, self.null_label = 5, 5
  self.no_text = nn.parameter({ 1, TEXT[2] }, nn.initialise.normal(1)) -- for every word
  self.inputs = {
    "labels", { "text", shape = TEXT, null = self.no_text, drop = o.drop }, "place",
    { "tokens", dtype = "int64", null = 7, drop = 0.25 },
  }
  self.patches, self.times = nn.patch_embedding(3, 2, width), nn.time_embedding(width, 16)
  self.labels, self.words, self.places = nn.label_embedding(5, width), nn.embedding(8, width), nn.linear(2, width)
  self.blocks = { Block(width), Block(width) }
  self.out = nn.linear(width, 12)
  self:assign_names()
end
function Reader:forward(x, t, labels, text, place, tokens)
  local c = self.times(t, x.dtype) + self.labels(labels) + self.places(place) + self.words(tokens):mean(2)
  local h = self.patches(x) + c:unsqueeze(2)
  for k, block in ipairs(self.blocks) do
    h = block(h, text)
    nn.taps.publish("block " .. k, h)
  end
  return ops.unpatchify(self.out(h), { patch = 2, size = self.size })
end
function Reader:drop_labels(y, state) return self.labels:drop(y, 0.5, state) end

local COUNT = 8
local function samples()
  local state, labels = pg.tensor({ 7, 0, 0 }, "int64"), {}
  local function draw(purpose, shape) return ops.random_uniform(shape, { state = state, purpose = purpose }) end
  for k = 1, COUNT do labels[k] = k % 5 end
  return COUNT, {
    images = { tensor = (draw("pictures", { COUNT, 8, 8, 3 }) * 255):to "uint8" },
    labels = { tensor = pg.tensor(labels, "int64") },
    text = { tensor = draw("text", { COUNT, unpack(TEXT) }) * 4 - 2 }, place = { tensor = draw("place", { COUNT, 2 }) },
    tokens = { tensor = (draw("tokens", { COUNT, 2 }) * 7):to "int64" },
  }
end

local losses = { { 1, loss.flow_matching() } }
local finish = stop.at_step(o.total)
if o.teacher then
  losses[2] = { 0.5, loss.feature_alignment { block = 1, hidden = 16 } }
  finish = stop.any(finish,
    stop.gradient_angle { block = 2, images = 8, time = { 0.5 }, from = 2, every = 2, below = -1.5 })
end

return pg.recipe {
  name      = "text",
  precision = o.precision,
  student   = Reader(16),
  teacher   = o.teacher and pg.models.vit {
    depth = 4, width = 30, heads = 3, patch = 4, image = 16, layer_scale = true, weights = o.weights,
  } or nil,
  data      = pg.data.dataset {
    name = "captions", classes = 5, channels = 3, height = 8, width = 8, batch = o.batch, image_size = 8,
    find = samples,
    fields = {
      { name = "images", dtype = "uint8", shape = { 8, 8, 3 } }, { name = "labels", dtype = "int64", shape = {} },
      { name = "text", dtype = "float32", shape = TEXT }, { name = "place", dtype = "float32", shape = { 2 } },
      { name = "tokens", dtype = "int64", shape = { 2 } },
    },
  },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-2 },
  ema       = 0.5,
  cache_teacher = o.cache,
  stages    = { { name = "train", losses = losses, finish = finish } },
  every     = { log = 1, checkpoint = 3 },
  sample    = { count = 4, steps = 3, cfg = o.cfg },
}
