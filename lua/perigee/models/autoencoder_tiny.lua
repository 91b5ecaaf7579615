--- Tiny autoencoders of others' latents (TAESD, github.com/madebyollin/taesd): a decoder that shows latents at a
--- hundredth of the cost, for previews. Latents are those that students are trained on, already scaled. Pictures are in
--- [−1, 1].
local Convolution = require "perigee.nn.conv2d"
local Convolution3x3 = require "perigee.nn.conv3x3"
local GroupNorm = require "perigee.nn.group_norm"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local translation = require "perigee.io.translation"
local weights_file = require "perigee.nn.weights_file"

local STAGES, BLOCKS = 4, 3 -- sizes, half as large each; blocks of all but the largest size, which has one

-- ---- one block -----------------------------------------------------------------------------------------------

local Block = module.class "tiny autoencoder block"

--- `pool`: a branch through a group norm before the convolutions, as FLUX.2's has it at the smallest size.
function Block:build(width, pool)
  if pool then
    self.pool1, self.pool2 = Convolution(width, 4 * width, 1, { bias = false }),
      Convolution(4 * width, width, 1, { bias = false })
    self.pool_norm = GroupNorm(4 * width, { groups = 4 })
  end
  self.conv1, self.conv2, self.conv3 = Convolution3x3(width, width), Convolution3x3(width, width),
    Convolution3x3(width, width)
end

--- x [B,C,H,W] -> [B,C,H,W]
function Block:forward(x)
  if self.pool1 then x = x + self.pool2(ops.relu(self.pool_norm(self.pool1(x)))) end
  local h = self.conv3(ops.relu(self.conv2(ops.relu(self.conv1(x)))))
  return ops.relu(x + h)
end

local Stage = module.class "tiny autoencoder stage"

function Stage:build(width, count, pool)
  self.blocks = {}
  for k = 1, count do self.blocks[k] = Block(width, pool) end
end

function Stage:forward(x)
  if self.downsample then x = self.downsample(x) end
  for _, block in ipairs(self.blocks) do x = block(x) end
  return self.upsample and self.upsample(x) or x
end

local function through(half, x)
  for _, stage in ipairs(half.stages) do x = stage(x) end
  return half.output(x)
end

local Encoder = module.class "tiny autoencoder encoder"

function Encoder:build(o)
  self.input, self.output, self.stages = Convolution3x3(3, o.channels), Convolution3x3(o.channels, o.latent), {}
  for k = 1, STAGES do
    self.stages[k] = Stage(o.channels, k == 1 and 1 or BLOCKS, o.pool and k == STAGES)
    if k > 1 then
      self.stages[k].downsample = Convolution(o.channels, o.channels, 3, { stride = 2, padding = 1, bias = false })
    end
  end
end

--- Pictures [B,3,H,W] in [0, 1] -> latents [B,latent,H/8,W/8]
function Encoder:forward(x) return through(self, self.input(x)) end

local Decoder = module.class "tiny autoencoder decoder"

function Decoder:build(o)
  self.input, self.output, self.stages = Convolution3x3(o.latent, o.channels), Convolution3x3(o.channels, 3), {}
  for k = 1, STAGES do
    self.stages[k] = Stage(o.channels, k == STAGES and 1 or BLOCKS, o.pool and k == 1)
    if k < STAGES then
      self.stages[k].upsample = Convolution3x3(o.channels, o.channels, { bias = false, enlarge = 2 })
    end
  end
end

--- Latents [B,latent,h,w] -> pictures [B,3,8·h,8·w], about in [0, 1]
function Decoder:forward(x)
  local limited = ops.tanh(x * (1 / 3)) * 3
  return through(self, ops.relu(self.input(limited)))
end

-- ---- the model -----------------------------------------------------------------------------------------------

---@class perigee.AutoencoderTiny : perigee.Module
---@field pictures integer  channels of pictures: 3
---@field latent integer    channels of latents
---@field shrink integer    pixels of a picture a latent's pixel has along a side: 8
---@field scale number      what a student is trained on is (latent − shift)·scale
---@field shift number
local Autoencoder = module.class "autoencoder_tiny"

---@class perigee.AutoencoderTinyOptions
---@field latent? integer    channels of a latent: 4
---@field channels? integer  64
---@field pool? boolean      a branch through a group norm at the smallest size (FLUX.2's): false
---@field scale? number      of the latents that students are trained on, (latent − shift)·scale: 1
---@field shift? number      0
---@field half? "both"|"encoder"|"decoder"  what there is of it: the releases are a file each
---@field weights? string    a file of weights (docs/weights.md); without one, random numbers
---@field names? string      the table of names of that file; by default it is recognised
---@field take? string       the part of the file; by default what comes first there

local rules = {
  latent = { "count", 4 },
  channels = { "count", 64 },
  pool = { "boolean", false },
  scale = { "number", 1 },
  shift = { "number", 0 },
  half = { "string", "both", choices = { "both", "encoder", "decoder" } },
  weights = { "string" },
  names = { "string", "auto" },
  take = { "string" },
}

---@param options? perigee.AutoencoderTinyOptions
function Autoencoder:build(options)
  local o = check.options("autoencoder_tiny", options or {}, rules)
  self.name, self.latent, self.pictures, self.shrink = "autoencoder_tiny", o.latent, 3, 2 ^ (STAGES - 1)
  self.scale, self.shift = o.scale, o.shift
  self.weights, self.names, self.take = o.weights, o.names, o.take
  if o.half ~= "decoder" then self.encoder = Encoder(o) end
  if o.half ~= "encoder" then self.decoder = Decoder(o) end
  self:assign_names()
end

local function expect(self, half, what, x, channels, multiple)
  if not self[half] then core.fail("autoencoder_tiny: it has no %s", half) end
  local s = x.shape
  if #s ~= 4 or s[2] ~= channels or s[3] % multiple ~= 0 or s[4] % multiple ~= 0 then
    core.fail("autoencoder_tiny: %s are %s; expected [B,%d,H,W]%s", what, core.shape_text(s), channels,
      multiple > 1 and (" with H and W multiples of %d"):format(multiple) or "")
  end
end

--- Latents [B,latent,H/8,W/8] of pictures [B,3,H,W] in [−1, 1], and their deviation, which is 0.
---@return perigee.Operand mean, perigee.Operand deviation
function Autoencoder:encode(x)
  expect(self, "encoder", "pictures", x, 3, self.shrink)
  local mean = self.encoder(x * 0.5 + 0.5)
  return mean, ops.fill(mean.shape, { value = 0, dtype = mean.dtype })
end

--- Pictures [B,3,8·h,8·w], about in [−1, 1], of latents [B,latent,h,w].
function Autoencoder:decode(x)
  expect(self, "decoder", "latents", x, self.latent, 1)
  return self.decoder(x) * 2 - 1
end

--- The latents, decoded.
function Autoencoder:forward(x) return self:decode((self:encode(x))) end

--- As for every module; a model with a weights file reads its parameters from there.
function Autoencoder:materialise(options)
  if not self.weights or options and options.initialise == false then
    return module.Module.materialise(self, options)
  end
  return weights_file.materialise(self, "autoencoder_tiny", options)
end

--- The options that the shapes of a weights file give.
---@param file perigee.WeightsFile
---@param kind perigee.WeightsKind
---@return perigee.AutoencoderTinyOptions
function Autoencoder.options_of(file, kind)
  local shapes = translation.shapes_inward(file, kind)
  local encodes, decodes = shapes["encoder.input.weight"], shapes["decoder.input.weight"]
  return {
    latent = decodes and decodes[2] or shapes["encoder.output.weight"][1], channels = (encodes or decodes)[1],
    pool = (shapes["decoder.stages.1.blocks.1.pool1.weight"]
      or shapes["encoder.stages.4.blocks.1.pool1.weight"]) ~= nil,
    half = encodes and decodes and "both" or encodes and "encoder" or "decoder",
  }
end

---@class perigee.models
---@field autoencoder_tiny fun(options?: perigee.AutoencoderTinyOptions): perigee.AutoencoderTiny
return { autoencoder_tiny = Autoencoder }
