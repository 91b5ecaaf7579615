--- Does aligning help, and ending it early? CIFAR-10 in pixels, a small SiT, pretrained ViT-Tiny as the teacher. One
--- arm a run, all of equal steps over the same pictures with the same noise:
---
---   sit    flow matching alone
---   repa   and feature alignment (REPA)
---   atta   and attention alignment
---   haste  and both (HASTE)
---
--- `ends` ends the alignment at a fixed step, `trigger` when the gradients turn against each other; without both it
--- lasts to the end. `record` logs the gradient angle of every block that both alignment losses reach, without ending
--- anything. An arm that ends later shares its beginning with one that doesn't: it can begin at a checkpoint of that
--- run, `--from RUN/checkpoints/step-NNNNNNN.safetensors`.
local pg = require "perigee"
local loss, signal, stop = pg.loss, pg.signal, pg.stop

local o = pg.options {
  { name = "arm", default = "haste", choices = { "sit", "repa", "atta", "haste" }, help = "what is aligned" },
  { "ends", 0, "step at which the alignment ends; 0: at none" },
  { "trigger", false, "end it by the gradient angle" },
  { "block", 3, "the trigger's block" },
  { "below", -0.05, "the trigger's threshold" },
  { "patience", 1, "readings in a row below it that the trigger waits for" },
  { "from_step", 300, "step of the trigger's first reading" },
  { "every", 100, "steps between the trigger's readings" },
  { "images", 96, "pictures a reading" },
  { "angle_ema", false, "read angles at the moving averages of the weights" },
  { "record", 0, "steps between logged gradient angles of blocks 1, 2 and 3; 0: none" },
  { "streams", 0, "steps between readings of the angles and losses that are measured in the step; 0: none" },
  { "total", 3000, "steps in all" },
  { "batch", 32, "images a step" },
  { name = "precision", default = "float32", choices = { "float32", "bf16" }, help = "of activations and products" },
  { "lr", 5e-4, "learning rate" },
  { "checkpoint", 500, "steps between checkpoints; all are kept" },
  { "data", "data/cifar10", "CIFAR-10: a folder of .npy files, of binary batches, or of PNGs with a folder a class" },
  { "cache", true, "keep what the losses read of the teacher on disk, 6 GB for haste; the same bits either way" },
  { "teacher", "weights/vit_tiny_patch16_224.safetensors", "ViT-Tiny/16 weights, timm names" },
}

local denoise   = loss.flow_matching       { path = "linear", time = pg.time.uniform() }
local features  = loss.feature_alignment   { block = 3, hidden = 256 }
-- The last block of a supervised ViT is trained through its class token alone: its patches' queries are not.
local attention = loss.attention_alignment { student = { 2, 3 }, teacher = { 8, 11 } }

local align = {
  repa  = { { 1.0, denoise }, { 0.5, features } },
  atta  = { { 1.0, denoise }, { 0.5, attention } },
  haste = { { 1.0, denoise }, { 0.5, features }, { 0.5, attention } },
}

local recorded = {}
if o.record > 0 then
  for block = 1, 3 do
    recorded[block] = signal.gradient_angle {
      name = "angle of block " .. block, block = block, time = { 0.02, 0.1, 0.3, 0.5, 0.8 }, images = o.images,
      from = o.record, every = o.record, ema = o.angle_ema,
    }
  end
end

if o.streams > 0 then
  local function add(s) recorded[#recorded + 1] = s end
  if o.arm ~= "atta" then
    add(signal.stream_angle { every = o.streams })
    add(signal.loss_by_time { "features", every = o.streams })
  end
  add(signal.loss_by_time { "denoise", every = o.streams })
  for _, decay in ipairs { 0.8, 0.95 } do -- over about 5 and 20 readings
    add(signal.holistic_angle { name = "holistic angle " .. decay, decay = decay, from = o.streams, every = o.streams })
  end
end

local ends = {}
if o.trigger then
  ends[#ends + 1] = stop.gradient_angle {
    block = o.block, time = { 0.02, 0.1, 0.5, 0.8 }, images = o.images, from = o.from_step, every = o.every,
    below = o.below, patience = o.patience, ema = o.angle_ema,
  }
end
if o.ends > 0 then ends[#ends + 1] = stop.at_step(o.ends) end

local stages = {}
if align[o.arm] then
  ends[#ends + 1] = stop.at_step(o.total)
  stages[1] = {
    name = "align", losses = align[o.arm], finish = #ends == 1 and ends[1] or stop.any(unpack(ends)),
    signals = recorded,
  }
end
if not align[o.arm] or #ends > 1 then
  stages[#stages + 1] = { name = "free", losses = { { 1.0, denoise } }, finish = stop.at_step(o.total) }
end

return pg.recipe {
  name      = "cifar10-" .. o.arm .. (o.trigger and "-trigger" or "") .. (o.ends > 0 and "-" .. o.ends or ""),
  precision = o.precision,
  student   = pg.models.sit {
    depth = 6, width = 128, heads = 4, patch = 4, size = 32, channels = 3, classes = 10, drop_label = 0.1,
  },
  -- on 128x128 pixels: its 8x8 patches are the student's
  teacher   = pg.models.vit_tiny_patch16_224 { weights = o.teacher },
  cache_teacher = o.cache and align[o.arm] ~= nil,
  data      = pg.data.cifar10 { dir = o.data, batch = o.batch, flip = true },
  test      = pg.data.cifar10 { dir = o.data, batch = o.batch, split = "test" },
  optim     = pg.optim.adamw { lr = o.lr, clip = 1, warmup = 100 },
  ema       = 0.998, -- the mean of about the last 500 steps
  stages    = stages,
  every     = { log = 20, checkpoint = o.checkpoint },
  keep      = 1000,
  sample    = { count = 40, cfg = 1, sampler = "heun", steps = 20 },
}
