--- AutoencoderKL (Rombach et al. 2022, arXiv 2112.10752): pictures to latents of a normal distribution, and latents to
--- pictures. By default Stable Diffusion's, 8 pixels a latent's side and 4 channels; VA-VAE's (arXiv 2501.01423) by
--- name. Pictures are in [−1, 1].
local Convolution = require "perigee.nn.conv2d"
local Convolution3x3 = require "perigee.nn.conv3x3"
local GroupNorm = require "perigee.nn.group_norm"
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local translation = require "perigee.io.translation"
local weights_file = require "perigee.nn.weights_file"

local EPSILON = 1e-6 -- of every group norm

local function norm_silu(channels) return GroupNorm(channels, { epsilon = EPSILON, activation = "silu" }) end

-- ---- one block -----------------------------------------------------------------------------------------------

local Residual = module.class "autoencoder block"

function Residual:build(inputs, outputs)
  self.norm1, self.conv1 = norm_silu(inputs), Convolution3x3(inputs, outputs)
  self.norm2, self.conv2 = norm_silu(outputs), Convolution3x3(outputs, outputs)
  if inputs ~= outputs then self.shortcut = Convolution(inputs, outputs, 1) end
end

--- x [B,inputs,H,W] -> [B,outputs,H,W]
function Residual:forward(x)
  local h = self.conv2(self.norm2(self.conv1(self.norm1(x))))
  return (self.shortcut and self.shortcut(x) or x) + h
end

--- Attention of one head as wide as all channels, over all positions.
local Attention = module.class "autoencoder attention"

function Attention:build(channels)
  self.norm = GroupNorm(channels, { epsilon = EPSILON })
  self.qkv, self.projection = Linear(channels, 3 * channels), Linear(channels, channels)
end

--- x [B,C,H,W] -> [B,C,H,W]
function Attention:forward(x)
  local b, c, h, w = unpack(x.shape)
  local parts = self.qkv(self.norm(x):reshape({ b, c, h * w }):transpose()):chunk(3)
  local map = ops.softmax(ops.matmul(parts[1], parts[2]:transpose()) * (1 / math.sqrt(c)), -1) -- [B,HW,HW]
  local attended = self.projection(ops.matmul(map, parts[3]))
  return x + attended:transpose():reshape { b, c, h, w }
end

--- The two blocks and the attention at the smallest size.
local Middle = module.class "autoencoder middle"

function Middle:build(channels)
  self.block1, self.attention, self.block2 = Residual(channels, channels), Attention(channels),
    Residual(channels, channels)
end

function Middle:forward(x) return self.block2(self.attention(self.block1(x))) end

-- ---- encoder and decoder ---------------------------------------------------------------------------------------

local Level = module.class "autoencoder level"

--- `count` blocks, with attention after each where asked for; then `resampled`: to half or twice the size.
function Level:build(inputs, outputs, count, attention)
  self.blocks, self.attentions = {}, attention and {} or nil
  for k = 1, count do
    self.blocks[k] = Residual(k == 1 and inputs or outputs, outputs)
    if attention then self.attentions[k] = Attention(outputs) end
  end
end

function Level:forward(x)
  for k, block in ipairs(self.blocks) do
    x = block(x)
    if self.attentions then x = self.attentions[k](x) end
  end
  local resample = self.downsample or self.upsample
  return resample and resample(x) or x
end

local Encoder = module.class "autoencoder encoder"

function Encoder:build(o)
  local width = o.channels
  self.input = Convolution3x3(o.pictures, width)
  self.levels = {}
  for k, times in ipairs(o.mult) do
    local level = Level(width, o.channels * times, o.blocks, o.attends[k])
    width = o.channels * times
    if k < #o.mult then -- zeros at the right and the bottom alone
      level.downsample = Convolution(width, width, 3, { stride = 2, padding = { 0, 1, 0, 1 } })
    end
    self.levels[k] = level
  end
  self.middle = Middle(width)
  self.norm, self.output = norm_silu(width), Convolution3x3(width, 2 * o.latent)
end

--- Pictures [B,3,H,W] -> [B,2·latent,h,w], before the last 1×1 convolution
function Encoder:forward(x)
  x = self.input(x)
  for _, level in ipairs(self.levels) do x = level(x) end
  return self.output(self.norm(self.middle(x)))
end

local Decoder = module.class "autoencoder decoder"

--- Its levels have the encoder's numbers, and run from the last, of the smallest size, to the first.
function Decoder:build(o)
  local width = o.channels * o.mult[#o.mult]
  self.input, self.middle, self.levels = Convolution3x3(o.latent, width), Middle(width), {}
  for k = #o.mult, 1, -1 do
    local level = Level(width, o.channels * o.mult[k], o.blocks + 1, o.attends[k])
    width = o.channels * o.mult[k]
    if k > 1 then level.upsample = Convolution3x3(width, width, { enlarge = 2 }) end
    self.levels[k] = level
  end
  self.norm, self.output = norm_silu(width), Convolution3x3(width, o.pictures)
end

--- [B,latent,h,w] -> pictures [B,3,H,W]
function Decoder:forward(x)
  x = self.middle(self.input(x))
  for k = #self.levels, 1, -1 do x = self.levels[k](x) end
  return self.output(self.norm(x))
end

-- ---- the model -----------------------------------------------------------------------------------------------

---@class perigee.AutoencoderKl : perigee.Module
---@field pictures integer  channels of pictures
---@field latent integer    channels of latents
---@field shrink integer    pixels of a picture a latent's pixel has along a side
---@field scale number      what a student is trained on is (latent − shift)·scale
---@field shift number
local Autoencoder = module.class "autoencoder_kl"

---@class perigee.AutoencoderKlOptions
---@field channels? integer      of the first level: 128
---@field mult? integer[]        channels of each level, as multiples of that: { 1, 2, 4, 4 }; half the size each
---@field blocks? integer        of each level of the encoder: 2; the decoder has one more
---@field attention? integer[]   levels with attention after every block: none
---@field latent? integer        channels of a latent: 4
---@field pictures? integer      channels of pictures: 3
---@field moments? boolean       1×1 convolutions between latents and the rest, `quant_conv` and `post_quant_conv`: true
---@field scale? number          of the latents that students are trained on, (latent − shift)·scale: 0.18215
---@field shift? number          0
---@field weights? string        a file of weights (docs/weights.md); without one, random numbers
---@field names? string          the table of names of that file; by default it is recognised
---@field take? string           the part of the file: "ema", "model"; by default what comes first there

local rules = {
  channels = { "count", 128 },
  mult = { "counts", { 1, 2, 4, 4 } },
  blocks = { "count", 2 },
  attention = { "counts", {} },
  latent = { "count", 4 },
  pictures = { "count", 3 },
  moments = { "boolean", true },
  scale = { "number", 0.18215 },
  shift = { "number", 0 },
  weights = { "string" },
  names = { "string", "auto" },
  take = { "string" },
}

local function build(self, name, options)
  local o = check.options(name, options or {}, rules)
  if #o.mult == 0 then core.fail("%s: 'mult' is empty; expected a multiple of the channels for each level", name) end
  o.attends = {}
  for _, level in ipairs(o.attention) do
    if level > #o.mult then core.fail("%s: 'attention' names level %d of %d", name, level, #o.mult) end
    o.attends[level] = true
  end
  self.name, self.latent, self.pictures, self.shrink = name, o.latent, o.pictures, 2 ^ (#o.mult - 1)
  self.scale, self.shift = o.scale, o.shift
  self.weights, self.names, self.take = o.weights, o.names, o.take
  self.encoder, self.decoder = Encoder(o), Decoder(o)
  if o.moments then
    self.quant = Convolution(2 * o.latent, 2 * o.latent, 1)
    self.post_quant = Convolution(o.latent, o.latent, 1)
  end
  self:assign_names()
end

---@param options? perigee.AutoencoderKlOptions
function Autoencoder:build(options) build(self, "autoencoder_kl", options) end

local function expect_images(self, what, x, channels, multiple)
  local s = x.shape
  if #s ~= 4 or s[2] ~= channels or s[3] % multiple ~= 0 or s[4] % multiple ~= 0 then
    core.fail("%s: %s are %s; expected [B,%d,H,W]%s", self.name, what, core.shape_text(s), channels,
      multiple > 1 and (" with H and W multiples of %d"):format(multiple) or "")
  end
end

--- Mean and deviation of the latents [B,latent,H/shrink,W/shrink] of pictures [B,pictures,H,W] in [−1, 1].
---@return perigee.Operand mean, perigee.Operand deviation
function Autoencoder:encode(x)
  expect_images(self, "pictures", x, self.pictures, self.shrink)
  local moments = self.encoder(x)
  if self.quant then moments = self.quant(moments) end
  local parts = ops.chunk(moments, 2, 2)
  return parts[1], ops.exp(ops.clamp(parts[2], -30, 20) * 0.5)
end

--- Pictures [B,pictures,shrink·h,shrink·w], about in [−1, 1], of latents [B,latent,h,w].
function Autoencoder:decode(x)
  expect_images(self, "latents", x, self.latent, 1)
  return self.decoder(self.post_quant and self.post_quant(x) or x)
end

--- The mean of the latents, decoded.
function Autoencoder:forward(x) return self:decode((self:encode(x))) end

--- As for every module; a model with a weights file reads its parameters from there.
function Autoencoder:materialise(options)
  if not self.weights or options and options.initialise == false then
    return module.Module.materialise(self, options)
  end
  return weights_file.materialise(self, "autoencoder_kl", options)
end

-- ---- what a file is --------------------------------------------------------------------------------------------

--- The options that the shapes of a weights file give.
---@param file perigee.WeightsFile
---@param kind perigee.WeightsKind
---@return perigee.AutoencoderKlOptions
local function options_of(file, kind)
  local shapes, o = translation.shapes_inward(file, kind), { mult = {}, blocks = 0, attention = {} }
  o.channels, o.pictures = shapes["encoder.input.weight"][1], shapes["encoder.input.weight"][2]
  o.latent, o.moments = shapes["decoder.input.weight"][2], shapes["quant.weight"] ~= nil
  local function level(k, rest) return shapes[("encoder.levels.%d.%s"):format(k, rest)] end
  while level(#o.mult + 1, "blocks.1.conv1.weight") do
    local k = #o.mult + 1
    o.mult[k] = level(k, "blocks.1.conv1.weight")[1] / o.channels
    if level(k, "attentions.1.norm.weight") then table.insert(o.attention, k) end
  end
  while level(1, ("blocks.%d.conv1.weight"):format(o.blocks + 1)) do o.blocks = o.blocks + 1 end
  return o
end

---@class perigee.models
---@field autoencoder_kl fun(options?: perigee.AutoencoderKlOptions): perigee.AutoencoderKl
---@field autoencoder_kl_f16d32 fun(options?: perigee.AutoencoderKlOptions): perigee.AutoencoderKl
local M = { autoencoder_kl = Autoencoder }

--- VA-VAE's, which LightningDiT is trained on: 16 pixels a latent's side, 32 channels, not scaled.
function M.autoencoder_kl_f16d32(options)
  local self = setmetatable({}, Autoencoder)
  build(self, "autoencoder_kl_f16d32",
    tables.merged({ mult = { 1, 1, 2, 2, 4 }, latent = 32, attention = { 5 }, scale = 1 }, options))
  return self
end

Autoencoder.options_of = options_of
return M
