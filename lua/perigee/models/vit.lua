--- Vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929) as teachers: one model, whose options
--- (vit/options.lua) make it timm's, DINO's, MAE's, CLIP's, ...: with class and register tokens or without, and with
--- positions that are learned, fixed or rotary, resampled to other grids.
local EncoderBlock = require "perigee.nn.encoder_block"
local LayerNorm = require "perigee.nn.layernorm"
local Linear = require "perigee.nn.linear"
local PatchEmbedding = require "perigee.nn.patch_embedding"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local low_pass = require "perigee.nn.low_pass"
local module = require "perigee.nn.module"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local position = require "perigee.nn.position"
local register_neurons = require "perigee.nn.register_neurons"
local rotary = require "perigee.nn.rotary"
local tables = require "perigee.base.tables"
local taps = require "perigee.nn.taps"
local tensor = require "perigee.core.tensor"
local vit_options = require "perigee.models.vit.options"
local vit_weights = require "perigee.models.vit.weights"

local EPSILON = 1e-6 -- of every layer norm, where neither an option nor a file of weights says another
local GELUS = { erf = "gelu_erf", tanh = "gelu_tanh", quick = "quick_gelu" }

-- ---- the model -----------------------------------------------------------------------------------------------

---@class perigee.Vit : perigee.Module
---@field depth integer
---@field width integer
---@field heads integer
---@field head_size integer
---@field patch integer
---@field channels integer
---@field image integer[]   { height, width } that pictures are resized to
---@field grid integer[]    { rows, columns } of patch tokens
---@field stored integer[]  grid of the position embedding
---@field prefix integer    tokens before the patches: the class token and the registers
---@field class_rows integer  1, or 0 without a class token
---@field classes integer?
local Vit = module.class "vit"

--- Positions of the class token and of the grid `stored`, [1,class + N,D]: a parameter, or MoCo v3's fixed sinusoids,
--- in which the class token's are 0. Nil where they are rotary.
function Vit:stored_positions()
  local rows, columns, width = self.stored[1], self.stored[2], self.width
  local shape = { 1, self.class_rows + rows * columns, width }
  if self.position_options.kind == "rotary" then return nil end
  if self.position_options.kind == "learned" then return module.parameter(shape, initialise.normal(0.02)) end
  return module.buffer(shape, function()
    local patches = position.sincos_2d(width, rows, columns, true)
    return self.class_rows == 0 and patches
      or ops.concat({ tensor.empty({ 1, 1, width }, patches.dtype):fill_(0), patches }, 2)
  end)
end

--- A number for each channel, as a buffer [1,C,1,1].
local function channel_buffer(list)
  local values = {}
  for k, v in ipairs(list) do values[k] = v end
  return module.buffer({ 1, #values, 1, 1 }, function() return tensor.tensor(values, { 1, #values, 1, 1 }) end)
end

local function build_layers(self, o)
  self.patch_embedding = PatchEmbedding(o.channels, o.patch, o.width, { bias = o.patch_bias })
  if o.class_token then self.class_token = module.parameter({ 1, 1, o.width }, initialise.normal(0.02)) end
  if o.registers > 0 then
    self.register_tokens = module.parameter({ 1, o.registers, o.width }, initialise.normal(0.02))
  end
  self.position = self:stored_positions()
  local epsilon = o.epsilon or EPSILON
  if o.pre_norm then self.pre_norm = LayerNorm(o.width, { epsilon = epsilon }) end
  self.blocks = {}
  for k = 1, o.depth do
    self.blocks[k] = EncoderBlock { width = o.width, heads = o.heads, hidden = o.hidden, epsilon = epsilon,
      layer_scale = o.layer_scale, swiglu = o.swiglu, activation = GELUS[o.gelu] }
  end
  if o.final_norm then self.norm = LayerNorm(o.width, { epsilon = epsilon }) end
  if o.classes then self.head = Linear(o.width, o.classes) end
end

local function build(self, name, options)
  local o = vit_options(name, options)
  if o.test_registers then
    local what, given = name .. ".test_registers.neurons", o.test_registers
    self.moved, self.added = register_neurons.by_block(what, given.neurons, o.depth, o.hidden), given.count
  end
  self.name, self.depth, self.width, self.heads, self.patch = name, o.depth, o.width, o.heads, o.patch
  self.head_size, self.channels, self.image = o.width / o.heads, o.channels, o.image
  self.grid = { o.image[1] / o.patch, o.image[2] / o.patch }
  self.class_rows = o.class_token and 1 or 0
  self.stored, self.registers, self.classes = o.stored, o.registers, o.classes
  self.prefix = self.class_rows + o.registers + (self.added or 0)
  self.follows_student = o.follows_student
  self.weights, self.names, self.take, self.position_options = o.weights, o.names, o.take, o.position
  self.resize, self.low_pass = o.resize, o.low_pass
  self.settings = {}
  for key, value in pairs(o) do
    if key ~= "weights" then self.settings[key] = value end
  end
  build_layers(self, o)
  local factors, shifts = {}, {} -- (x − mean)/std = x·factor + shift
  for k = 1, o.channels do factors[k], shifts[k] = 1 / o.std[k], -o.mean[k] / o.std[k] end
  self.pixel_factor, self.pixel_shift = channel_buffer(factors), channel_buffer(shifts)
  self:assign_names()
end

---@param options perigee.VitOptions
function Vit:build(options) build(self, "vit", options) end

--- The input size at which this model's patch grid is the given one.
---@param grid integer[]  { rows, columns }
---@return integer[]
function Vit:grid_input(grid) return { grid[1] * self.patch, grid[2] * self.patch } end

--- The patch grid to use with a student's: the student's own, unless this model's `image` was given.
---@param grid integer[]
---@return integer[]
function Vit:grid_for(grid) return self.follows_student and grid or self.grid end

local function input_size(self, input)
  if input == nil then return self.image end
  local size = check.size(input)
  if size[1] % self.patch ~= 0 or size[2] % self.patch ~= 0 then
    core.fail("%s: input %dx%d does not divide into patches of %d", self.name, size[1], size[2], self.patch)
  end
  return size
end

--- Pictures [B,C,H,W] in [0,1]: normalised per channel, then resized to `input` (n or { height, width }; by default the
--- model's own size). The two commute: a resampling's weights sum to 1.
function Vit:preprocess(images, input)
  if not op.is_operand(images) then
    core.fail("%s: expected pictures [B,%d,H,W] in [0,1], got a %s", self.name, self.channels, type(images))
  elseif #images.shape ~= 4 or images.shape[2] ~= self.channels then
    core.fail("%s: images are %s, not [B,%d,H,W]", self.name, core.shape_text(images.shape), self.channels)
  end
  local factor, shift = self.pixel_factor:to(images.dtype), self.pixel_shift:to(images.dtype)
  return ops.resize(images * factor + shift, {
    size = input_size(self, input), mode = self.resize.mode, antialias = self.resize.antialias,
  })
end

--- Positions of the class token [1,1,D] and of the patches [1,rows·columns,D], resampled where the grid is another. Nil
--- where there are none.
local function positions(self, grid, dtype)
  if not self.position then return nil, nil end
  local all, skip = self.position:to(dtype), self.class_rows
  local patches = ops.resize_tokens(all, {
    from = self.stored, to = grid, skip = skip, mode = "bicubic", antialias = self.position_options.antialias,
  })
  return skip == 1 and all:narrow(2, 1, 1) or nil, patches
end

--- Tokens [B,prefix+N,D] of preprocessed pictures: class, registers (which have no position), patches.
local function embed(self, x, grid)
  local batch = x.shape[1]
  local class_position, patch_positions = positions(self, grid, x.dtype)
  local patches, parts = self.patch_embedding(x), {}
  if patch_positions then patches = patches + patch_positions end
  local function add(token, count) parts[#parts + 1] = token:expand { batch, count, self.width } end
  if self.class_token then
    local class = self.class_token:to(x.dtype)
    add(class_position and class + class_position or class, 1)
  end
  if self.register_tokens then add(self.register_tokens:to(x.dtype), self.registers) end
  if self.added then add(patches:narrow(2, 1, 1) * 0, self.added) end
  parts[#parts + 1] = patches
  return parts[2] and ops.concat(parts, 2) or patches
end

--- The change that test-time registers make to the hidden layer of a block, or nil.
local function change_of(self, number)
  local neurons = self.moved and self.moved[number]
  return neurons and function(hidden)
    return register_neurons.move(hidden, neurons, self.prefix - self.added + 1, self.added, self.class_rows)
  end
end

--- Rotary turns of a grid's patches, or nil.
local function turns_of(self, grid, x)
  if self.position_options.kind ~= "rotary" then return nil end
  local turns = rotary.grid(grid, self.head_size,
    { base = self.position_options.base, centres = true, dtype = op.stat(x.dtype) })
  return tensor.is_tensor(x) and turns:to(x.device) or turns
end

--- Tokens after the final norm, if the model has one, [B,prefix+N,D], for preprocessed pictures. Publishes "block i"
--- and "qkv of block i".
function Vit:tokens(x)
  local grid = { x.shape[3] / self.patch, x.shape[4] / self.patch }
  local h, turns = embed(self, x, grid), turns_of(self, grid, x)
  if self.pre_norm then h = self.pre_norm(h) end
  for number, block in ipairs(self.blocks) do
    h = block(h, number, turns, change_of(self, number))
    taps.publish("block " .. number, h)
  end
  return self.norm and self.norm(h) or h
end

local feature_rules = {
  layers = { "counts", {} },
  logits = { "counts", {} },
  class_token = { "boolean", false },
  input = { "size" },
  grid = { "counts" },
  t = { "any" },
}

--- Logits q·kᵀ/√d of the patch tokens alone, [B,H,N,N], out of a packed qkv [B,prefix+N,3,H,d].
function Vit:logits(qkv)
  local q, k = taps.queries_and_keys(qkv)
  local patches = qkv.shape[2] - self.prefix
  q = q:narrow(2, self.prefix + 1, patches):permute { 1, 3, 2, 4 }
  k = k:narrow(2, self.prefix + 1, patches):permute { 1, 3, 4, 2 }
  return ops.mul(ops.matmul(q, k), 1 / math.sqrt(self.head_size))
end

--- Patch tokens after the final norm, if the model has one, [B,N,D] of pictures [B,C,H,W] in [0,1], and a table of what
--- else was asked for: `qkv` by layer (packed, [B,prefix+N,3,H,d], the first `teacher.prefix` tokens being class and
--- registers), `logits` by layer, `class_token` [B,D].
--- `grid` is the patch grid to work on, { rows, columns }; or `input` the size in pixels; by default the model's own.
--- With the model's option `low_pass`, `t` [B] are the times by which pictures lose their high frequencies.
---@param options? { layers?: integer[], logits?: integer[], class_token?: boolean, input?: integer|integer[],
---  grid?: integer[], t?: perigee.Value }
function Vit:features(images, options)
  options = check.options(self.name .. ".features", options or {}, feature_rules)
  if options.class_token and not self.class_token then core.fail("%s: it has no class token", self.name) end
  local input = options.grid and self:grid_input(options.grid) or options.input
  if self.low_pass and options.t then
    images = low_pass.at_times(images, self.low_pass.keep, options.t, self.low_pass.times)
  end
  local function take(collected, layers, convert)
    local list = {}
    for _, layer in ipairs(layers) do
      if layer > self.depth then core.fail("%s: layer %d of %d", self.name, layer, self.depth) end
      list[layer] = convert(taps.read(collected, "qkv of block " .. layer))
    end
    return list
  end
  local tokens, collected = taps.collect(self.tokens, self, self:preprocess(images, input))
  local extra = {
    qkv = take(collected, options.layers, function(qkv) return qkv end),
    logits = take(collected, options.logits, function(qkv) return self:logits(qkv) end),
  }
  if options.class_token then extra.class_token = tokens:select(2, 1) end
  return tokens:narrow(2, self.prefix + 1, tokens.shape[2] - self.prefix), extra
end

local find_rules = { threshold = "number", block = { "count" }, count = { "count", 10 }, input = { "size" } }

--- The neurons of the MLPs that are largest where the output of block `block` (by default the last) has patches whose
--- norm is above `threshold`, for pictures [B,C,H,W] in [0,1]: the first `count` (10) pairs { block, neuron }, for the
--- option `test_registers`, each with its mean absolute value there as `score`. The model must be materialised. The
--- paper takes norms above 150 for DINOv2, and averages over 500 pictures.
---@param options { threshold: number, block?: integer, count?: integer, input?: integer|integer[] }
---@return { [1]: integer, [2]: integer, score: number }[]
function Vit:find_register_neurons(images, options)
  local o = check.options(self.name .. ".find_register_neurons", options, find_rules)
  if (o.block or 1) > self.depth then core.fail("%s: block %d of %d", self.name, o.block, self.depth) end
  return tensor.tidy(function()
    local _, collected = taps.collect(self.tokens, self, self:preprocess(images, o.input))
    local hiddens = {}
    for k = 1, self.depth do hiddens[k] = taps.read(collected, "neurons of block " .. k) end
    return register_neurons.find(hiddens, taps.read(collected, "block " .. (o.block or self.depth)), o.threshold,
      self.prefix, o.count)
  end)
end

--- Class logits [B,classes] of pictures [B,C,H,W] in [0,1].
function Vit:classify(images, input)
  if not self.head then core.fail("%s: no head; give the option 'classes'", self.name) end
  local tokens = self:tokens(self:preprocess(images, input))
  return self.head(tokens:select(2, 1))
end

--- A model called is a model asked for its features.
function Vit:forward(images, options) return self:features(images, options) end

-- ---- weights -------------------------------------------------------------------------------------------------

--- Materialises from the weights file, which must be there.
---@param options? { dtype?: string, device?: string, purpose?: string }
function Vit:load(options)
  if not self.weights then core.fail("%s: no weights to load; give the option 'weights'", self.name) end
  return self:materialise(options)
end

--- As for every module; a model with a weights file reads its parameters from there.
function Vit:materialise(options)
  if not self.weights then return module.Module.materialise(self, options) end
  return vit_weights.materialise(self, options)
end

-- ---- named sizes ---------------------------------------------------------------------------------------------

--- A published model under its name: a function from options to the model. The name decides the options in `fixed`;
--- `defaults` are its own defaults of other options.
---@param name string
---@param fixed table<string, any>
---@param defaults table<string, any>
---@return fun(options?: perigee.VitNamedOptions): perigee.Vit
function Vit.named(name, fixed, defaults)
  return function(options)
    for key in pairs(options or {}) do
      if fixed[key] ~= nil then core.fail("%s: the name fixes '%s'; use vit { ... } for another", name, key) end
    end
    local self = setmetatable({}, Vit)
    local all = tables.merged(defaults, options, fixed)
    for _, key in ipairs { "resize", "position" } do -- tables of options, each with its own defaults
      if type(all[key]) == "table" then all[key] = tables.merged(defaults[key] or {}, all[key]) end
    end
    build(self, name, all)
    return self
  end
end

Vit.IMAGENET = { mean = { 0.485, 0.456, 0.406 }, std = { 0.229, 0.224, 0.225 } }

---@class perigee.models
---@field vit fun(options: perigee.VitOptions): perigee.Vit
---@field vit_tiny_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_small_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_small_patch32_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_base_patch8_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_base_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_base_patch32_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_large_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_huge_patch14_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = { vit = Vit }

local sizes = { tiny = { 192, 3, 12, 16 }, small = { 384, 6, 12, 16, 32 }, base = { 768, 12, 12, 8, 16, 32 },
  large = { 1024, 16, 24, 16 }, huge = { 1280, 16, 32, 14 } }
for size, w in pairs(sizes) do
  for _, patch in ipairs { unpack(w, 4) } do
    local name = ("vit_%s_patch%d_224"):format(size, patch)
    M[name] = Vit.named(name, { width = w[1], heads = w[2], depth = w[3], patch = patch }, { stored = 224 / patch })
  end
end
return M
