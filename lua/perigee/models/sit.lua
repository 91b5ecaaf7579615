--- SiT (Ma et al. 2024, arXiv 2401.08740): a transformer over patches of a noised latent or image, conditioned on
--- time and class by adaptive layer norm (adaLN-zero; Peebles, Xie 2022, arXiv 2212.09748). It predicts the velocity,
--- or what its loss says. DiT is the same with a second output for the variance (models/dit.lua).
local Attention = require "perigee.nn.attention"
local LabelEmbedding = require "perigee.nn.label_embedding"
local Linear = require "perigee.nn.linear"
local Mlp = require "perigee.nn.mlp"
local PatchEmbedding = require "perigee.nn.patch_embedding"
local TimeEmbedding = require "perigee.nn.time_embedding"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local position = require "perigee.nn.position"
local program = require "perigee.core.program"
local rotary = require "perigee.nn.rotary"
local tables = require "perigee.base.tables"
local taps = require "perigee.nn.taps"
local tensor = require "perigee.core.tensor"
local weights_file = require "perigee.nn.weights_file"

local EPSILON = 1e-6 -- of every layer norm

--- A linear layer whose output is zero at first.
local function zero_linear(inputs, outputs) return Linear(inputs, outputs, { initialise = initialise.zeros }) end

-- ---- one block -----------------------------------------------------------------------------------------------

local Block = module.class "sit block"

function Block:build(width, heads, hidden)
  self.modulation = zero_linear(width, 6 * width)
  self.attention = Attention(width, heads, { interleaved = true })
  self.mlp = Mlp(width, hidden, { activation = "gelu_tanh" })
end

--- x [B,N,D], c [B,1,D] (after SiLU) -> [B,N,D]; `turns` of nn.rotary, where positions are rotary too
function Block:forward(x, c, number, turns)
  local m = self.modulation(c):chunk(6) -- shift, scale, gate for attention; shift, scale, gate for the MLP: [B,1,D]
  local normalised = ops.layernorm_modulate(x, m[1], m[2], { epsilon = EPSILON })
  local attended = self.attention(normalised, "qkv of block " .. number, turns)
  x = ops.gated_residual(x, m[3], attended)
  local transformed = self.mlp(ops.layernorm_modulate(x, m[4], m[5], { epsilon = EPSILON }))
  return ops.gated_residual(x, m[6], transformed)
end

-- ---- the output ----------------------------------------------------------------------------------------------

local Final = module.class "sit output"

function Final:build(width, outputs)
  self.modulation = zero_linear(width, 2 * width)
  self.projection = zero_linear(width, outputs)
end

--- x [B,N,D], c [B,1,D] -> [B,N,p·p·C]: a patch's pixels row by row, each with its channels
function Final:forward(x, c)
  local m = self.modulation(c):chunk(2)
  return self.projection(ops.layernorm_modulate(x, m[1], m[2], { epsilon = EPSILON }))
end

-- ---- the model -----------------------------------------------------------------------------------------------

---@class perigee.Sit : perigee.Module
---@field depth integer
---@field width integer
---@field heads integer
---@field head_size integer
---@field patch integer
---@field channels integer
---@field size integer[]    { height, width } of the input
---@field grid integer[]    { rows, columns } of tokens
---@field tokens integer
---@field classes integer
---@field null_label integer
---@field drop_label number
---@field learned_variance boolean  forward returns a second value
local Sit = module.class "sit"
Sit.public_names = "repa" -- of io/names

local rules = {
  depth = "count",
  width = "count",
  heads = "count",
  patch = { "count", 2 },
  channels = { "count", 4 },
  size = { "size", 32 },
  classes = { "count", 1000 },
  drop_label = { "fraction", 0.1 },
  mlp_ratio = { "number", 4 },
  time_features = { "count", 256 },
  recompute = { "boolean", false },
  rotary = { "boolean", false },
  learned_variance = { "boolean", false },
  label_deviation = { "number", 0.02 },
  time_deviation = { "number", 0.02 },
  weights = { "string" },
  names = { "string", "auto" },
  take = { "string" },
}

--- Options of a named size, which decides depth, width, heads and patch.
---@class perigee.SitNamedOptions
---@field channels? integer     4
---@field size? integer|integer[]  of the input: 32, or { height, width }
---@field classes? integer      1000
---@field drop_label? number    probability that training replaces a label by the null label: 0.1
---@field mlp_ratio? number     4
---@field time_features? integer  width of the time's sinusoids: 256
---@field recompute? boolean    compute blocks again in the backward pass instead of keeping what they saved
---@field learned_variance? boolean  a second output of x's shape, for loss.variational_bound: false
---@field rotary? boolean       rotary positions too: half of each head's pairs turn by the row, half by the column (as
---  in LightningDiT, arXiv 2501.01423): false
---@field label_deviation? number  of the label table's first values: 0.02; short runs learn faster from larger ones
---@field time_deviation? number   of the time MLP's first weights: 0.02
---@field weights? string          a file of weights to start from (docs/weights.md), instead of random numbers
---@field names? string            the table of names of that file; by default it is recognised
---@field take? string             the part of the file: "ema" or "model"; by default its moving averages

---@class perigee.SitOptions : perigee.SitNamedOptions
---@field depth integer
---@field width integer
---@field heads integer
---@field patch? integer        2

local function position_buffer(width, grid)
  if width % 4 ~= 0 then
    core.fail("sit: width %d is not a multiple of 4, which its position embedding needs", width)
  end
  local function compute() return position.sincos_2d(width, grid[1], grid[2]) end
  return module.buffer({ 1, grid[1] * grid[2], width }, compute)
end

local function build(self, name, options)
  options = check.options(name, options, rules)
  local size, patch, width = check.size(options.size), options.patch, options.width
  if size[1] % patch ~= 0 or size[2] % patch ~= 0 then
    core.fail("%s: size %dx%d does not divide into patches of %d", name, size[1], size[2], patch)
  end
  if width % options.heads ~= 0 then
    core.fail("%s: width %d does not divide into %d heads", name, width, options.heads)
  end
  self.name, self.depth, self.width, self.heads = name, options.depth, width, options.heads
  self.head_size = width / options.heads
  if options.rotary and self.head_size % 4 ~= 0 then
    core.fail("%s: heads of size %d; rotary positions of a grid need a multiple of 4", name, self.head_size)
  end
  self.rotary = options.rotary or nil
  self.patch, self.channels, self.size = patch, options.channels, size
  self.grid = { size[1] / patch, size[2] / patch }
  self.tokens = self.grid[1] * self.grid[2]
  self.classes, self.null_label, self.drop_label = options.classes, options.classes, options.drop_label
  self.recompute, self.settings, self.learned_variance = options.recompute, options, options.learned_variance
  self.weights, self.names, self.take = options.weights, options.names, options.take
  if self.learned_variance then self.public_names = "dit" end

  self.patch_embedding = PatchEmbedding(self.channels, patch, width)
  self.position = position_buffer(width, self.grid)
  self.time_embedding = TimeEmbedding(width, options.time_features, options.time_deviation)
  self.label_embedding = LabelEmbedding(self.classes, width, options.label_deviation)
  self.blocks = {}
  for k = 1, self.depth do self.blocks[k] = Block(width, self.heads, math.floor(width * options.mlp_ratio)) end
  self.final = Final(width, patch * patch * self.channels * (self.learned_variance and 2 or 1))
  self:assign_names()
end

---@param options perigee.SitOptions
function Sit:build(options) build(self, "sit", options) end

function Sit:check_inputs(x, t, y)
  local batch = x.shape[1]
  local expected = { batch, self.channels, self.size[1], self.size[2] }
  if #x.shape ~= 4 or x.shape[2] ~= expected[2] or x.shape[3] ~= expected[3] or x.shape[4] ~= expected[4] then
    core.fail("%s: x is %s, not [B,%d,%d,%d]", self.name, core.shape_text(x.shape), self.channels, self.size[1],
      self.size[2])
  end
  for what, v in pairs { t = t, y = y } do
    if #v.shape ~= 1 or v.shape[1] ~= batch then
      core.fail("%s: %s is %s, not [%d], one for each sample", self.name, what, core.shape_text(v.shape), batch)
    end
  end
end

--- The turns of rotary positions, or nil.
local function turns_of(self, x)
  if not self.rotary then return nil end
  local turns = rotary.grid(self.grid, self.head_size, { dtype = op.stat(x.dtype) })
  return tensor.is_tensor(x) and turns:to(x.device) or turns
end

--- The prediction [B,C,H,W] for x [B,C,H,W] at times t [B] (0: data, 1: noise) and labels y [B]; with a learned
--- variance, that too, [B,C,H,W]: where from β̃ (−1) to β (1) its log lies. Publishes "embedded", "conditioning",
--- "block i" and "qkv of block i".
function Sit:forward(x, t, y)
  self:check_inputs(x, t, y)
  local h = self.patch_embedding(x) + self.position:to(x.dtype)
  taps.publish("embedded", h)
  local conditioning = self.time_embedding(t, x.dtype) + self.label_embedding(y)
  taps.publish("conditioning", conditioning)
  local c = ops.silu(conditioning):reshape { x.shape[1], 1, self.width }
  local turns = turns_of(self, x)
  for number, block in ipairs(self.blocks) do
    if self.recompute and program.is_value(h) then
      h = h.program:recompute(block.forward, block, h, c, number, turns)
    else h = block(h, c, number, turns) end
    taps.publish("block " .. number, h)
  end
  local made = ops.unpatchify(self.final(h, c), {
    patch = self.patch, order = "channels_last", channels = self.channels * (self.learned_variance and 2 or 1),
    size = self.size,
  })
  if not self.learned_variance then return made end
  local parts = made:chunk(2, 2)
  return parts[1], parts[2]
end

--- Labels for training: each becomes the null label with the probability `drop_label`.
function Sit:drop_labels(y, state) return self.label_embedding:drop(y, self.drop_label, state) end

--- As for every module; a model with a weights file begins with what stands there.
function Sit:materialise(options)
  local loaded = options and (options.initialise == false or options.continues) -- by the caller
  if not self.weights or loaded then return module.Module.materialise(self, options) end
  return weights_file.materialise(self, "sit", options)
end

-- ---- named sizes ---------------------------------------------------------------------------------------------

local sizes = {
  s = { depth = 12, width = 384, heads = 6 },
  b = { depth = 12, width = 768, heads = 12 },
  l = { depth = 24, width = 1024, heads = 16 },
  xl = { depth = 28, width = 1152, heads = 16 },
}

--- A size of the paper under its name: the name says depth, width, heads and patch, the options the rest.
local function named(name, fixed, defaults)
  return function(options)
    for key in pairs(options or {}) do
      if fixed[key] then
        core.fail("%s: the name fixes '%s' to %s; use %s { ... } for another", name, key, fixed[key], name:match "^%l+")
      end
    end
    local self = setmetatable({}, Sit)
    build(self, name, tables.merged(defaults, tables.merged(options, fixed)))
    return self
  end
end

--- All sizes, as FAMILY_s_2 ... FAMILY_xl_8.
---@param family string
---@param defaults? table  options that hold unless they are given
---@return table<string, fun(options?: perigee.SitNamedOptions): perigee.Sit>
function Sit.all_sizes(family, defaults)
  local made = {}
  for letter, size in pairs(sizes) do
    for _, patch in ipairs { 2, 4, 8 } do
      local name = ("%s_%s_%d"):format(family, letter, patch)
      made[name] = named(name, { depth = size.depth, width = size.width, heads = size.heads, patch = patch }, defaults)
    end
  end
  return made
end

---@class perigee.models
---@field sit fun(options: perigee.SitOptions): perigee.Sit
---@field sit_s_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_s_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_s_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_b_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_l_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_2 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_4 fun(options?: perigee.SitNamedOptions): perigee.Sit
---@field sit_xl_8 fun(options?: perigee.SitNamedOptions): perigee.Sit
local M = Sit.all_sizes "sit"
M.sit = Sit
return M
