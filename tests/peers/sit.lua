--- HASTE for benchmarks: a SiT of any size on random latents, a teacher with random weights unless a file is given.
--- By default SiT-S/2 (256 tokens) with a ViT-Tiny at 16×16 patches, batch 16, float32.
local pg = require "perigee"
local loss, stop = pg.loss, pg.stop

local o = pg.options {
  { "model", "s_2", "SiT's size: s_2, b_2, l_2, xl_2, ...; or tiny, to rehearse" },
  { "teacher", "vit_tiny", "vit_tiny (16x16 patches of 256 pixels), dinov2_b (of 224), or tiny" },
  { "weights", "", "the teacher's weights; none: random ones" },
  { "batch", 16, "images a step" },
  { "precision", "float32", "float32 or bf16" },
  { "hidden", 2048, "width of the projector's hidden layers" },
}

local students = {
  tiny = function(options)
    options.depth, options.width, options.heads, options.patch = 4, 64, 2, 8
    return pg.models.sit(options)
  end,
}
local teachers = {
  vit_tiny = pg.models.vit_tiny_patch16_224,
  dinov2_b = function(options)
    options.image = 224
    return pg.models.dinov2_vit_b_14(options)
  end,
  tiny = function(options)
    options.depth, options.width, options.heads, options.patch, options.image = 4, 48, 3, 16, 64
    return pg.models.vit(options)
  end,
}
local student = (students[o.model] or pg.models["sit_" .. o.model]) {}
local teacher = teachers[o.teacher] { weights = o.weights ~= "" and o.weights or nil }

-- the paper's layers (from 1) for SiT-XL/2 and L/2, and for B/2, which S/2 follows
local layers = { block = 5, student = { 3, 4, 5 }, teacher = { 8, 10, 12 } }
if student.depth >= 24 then layers = { block = 8, student = { 5, 6, 7, 8 }, teacher = { 9, 10, 11, 12 } }
elseif o.model == "tiny" then layers = { block = 3, student = { 2, 3 }, teacher = { 3, 4 } } end

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = layers.block, hidden = o.hidden }
local attention = loss.attention_alignment { student = layers.student, teacher = layers.teacher }

return pg.recipe {
  name      = "bench-sit-" .. o.model,
  precision = o.precision,
  student   = student,
  teacher   = teacher,
  data      = pg.data.synthetic { batch = o.batch, image = 256 },
  optim     = pg.optim.adamw { lr = 1e-4, clip = 1 },
  ema       = 0.9999,

  stages = {
    { name = "haste", losses = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
      finish = stop.at_step(250000) },
    { name = "repa", losses = { { 1.0, denoise }, { 0.5, features } }, finish = stop.at_step(300000) },
    { name = "free", losses = { { 1.0, denoise } }, finish = stop.at_step(400000) },
  },
}
