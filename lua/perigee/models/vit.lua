--- Vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929) as teachers: timm's and DINOv2's (Oquab et al.
--- 2023, arXiv 2304.07193), with class and register tokens, LayerScale, and positions resampled to other grids.
local Attention = require "perigee.nn.attention"
local LayerNorm = require "perigee.nn.layernorm"
local LayerScale = require "perigee.nn.layer_scale"
local Linear = require "perigee.nn.linear"
local Mlp = require "perigee.nn.mlp"
local PatchEmbedding = require "perigee.nn.patch_embedding"
local SwiGlu = require "perigee.nn.swiglu"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local taps = require "perigee.nn.taps"
local tensor = require "perigee.core.tensor"
local weights = require "perigee.io.weights"

local EPSILON = 1e-6 -- of every layer norm
local HALF = { 0.5, 0.5, 0.5 }

-- ---- one block -----------------------------------------------------------------------------------------------

local Block = module.class "vit block"

function Block:build(o, hidden)
  self.norm1, self.norm2 = LayerNorm(o.width, { epsilon = EPSILON }), LayerNorm(o.width, { epsilon = EPSILON })
  self.attention = Attention(o.width, o.heads)
  self.mlp = o.swiglu and SwiGlu(o.width, hidden) or Mlp(o.width, hidden, { activation = "gelu_" .. o.gelu })
  if o.layer_scale then self.scale1, self.scale2 = LayerScale(o.width), LayerScale(o.width) end
end

--- x [B,N,D] -> [B,N,D]
function Block:forward(x, number)
  local attended = self.attention(self.norm1(x), "qkv of block " .. number)
  x = self.scale1 and self.scale1(x, attended) or x + attended
  local transformed = self.mlp(self.norm2(x))
  return self.scale2 and self.scale2(x, transformed) or x + transformed
end

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
---@field classes integer?
local Vit = module.class "vit"

local rules = {
  depth = "count",
  width = "count",
  heads = "count",
  patch = "count",
  image = { "size" },
  stored = { "size" },
  channels = { "count", 3 },
  weights = { "string" },
  names = { "string", "auto" },
  take = { "string" },
  registers = { "natural", 0 },
  layer_scale = { "boolean", false },
  gelu = { "string", "erf", choices = { "erf", "tanh" } },
  swiglu = { "boolean", false },
  mlp_ratio = { "number", 4 },
  classes = { "count" },
  mean = { "numbers", HALF },
  std = { "numbers", HALF },
  resize = { "table", {} },
  position = { "table", {} },
}

--- Options of a named model, which decides depth, width, heads, patch and the kind of its blocks.
---@class perigee.VitNamedOptions
---@field image? integer|integer[]   what pictures are resized to; by default what the stored positions are for
---@field stored? integer|integer[]  grid of the position embedding, the image's by default; a weights file's own wins
---@field weights? string            a file of weights (docs/weights.md); without one, random numbers
---@field names? string              the table of names of that file; by default it is recognised
---@field take? string               the part of the file: "ema", "model", "teacher"; by default what comes first there
---@field classes? integer           a linear head on the class token
---@field mean? number[]             of the pictures' channels; 0.5 each
---@field std? number[]
---@field resize? { mode?: "bicubic"|"bilinear", antialias?: boolean }
---@field position? { antialias?: boolean }

---@class perigee.VitOptions : perigee.VitNamedOptions
---@field depth integer
---@field width integer
---@field heads integer
---@field patch integer
---@field registers? integer         0
---@field layer_scale? boolean       false
---@field gelu? "erf"|"tanh"
---@field swiglu? boolean            false
---@field mlp_ratio? number          4

local resize_rules = {
  mode = { "string", "bicubic", choices = { "bicubic", "bilinear" } },
  antialias = { "boolean", false },
}
local position_rules = { antialias = { "boolean", true } }

--- DINOv2's giant has a hidden width of 2/3 of ratio · width, rounded up to a multiple of 8.
local function hidden_width(o)
  local hidden = math.floor(o.width * o.mlp_ratio)
  return o.swiglu and math.floor((math.floor(hidden * 2 / 3) + 7) / 8) * 8 or hidden
end

local function check_geometry(name, o)
  if o.width % o.heads ~= 0 then core.fail("%s: width %d does not divide into %d heads", name, o.width, o.heads) end
  for _, key in ipairs { "mean", "std" } do
    if #o[key] ~= o.channels then
      core.fail("%s: '%s' has %d entries for %d channels", name, key, #o[key], o.channels)
    end
  end
  if not o.image and not o.stored then core.fail("%s: option 'image' is missing: the size of its pictures", name) end
  o.image, o.stored = o.image and check.size(o.image), o.stored and check.size(o.stored)
  o.follows_student = o.image == nil
  o.image = o.image or { o.stored[1] * o.patch, o.stored[2] * o.patch }
  if o.image[1] % o.patch ~= 0 or o.image[2] % o.patch ~= 0 then
    core.fail("%s: image %dx%d does not divide into patches of %d", name, o.image[1], o.image[2], o.patch)
  end
  o.stored = o.stored or { o.image[1] / o.patch, o.image[2] / o.patch }
end

local function position_parameter(stored, width)
  return module.parameter({ 1, 1 + stored[1] * stored[2], width }, initialise.normal(0.02))
end

--- A number for each channel, as a buffer [1,C,1,1].
local function channel_buffer(list)
  local values = {}
  for k, v in ipairs(list) do values[k] = v end
  return module.buffer({ 1, #values, 1, 1 }, function() return tensor.tensor(values, { 1, #values, 1, 1 }) end)
end

local function build(self, name, options)
  local o = check.options(name, options, rules)
  o.resize = check.options(name .. ".resize", o.resize, resize_rules)
  o.position = check.options(name .. ".position", o.position, position_rules)
  check_geometry(name, o)
  self.name, self.depth, self.width, self.heads, self.patch = name, o.depth, o.width, o.heads, o.patch
  self.head_size, self.channels, self.image = o.width / o.heads, o.channels, o.image
  self.grid = { o.image[1] / o.patch, o.image[2] / o.patch }
  self.stored, self.registers, self.prefix, self.classes = o.stored, o.registers, 1 + o.registers, o.classes
  self.follows_student = o.follows_student
  self.weights, self.names, self.take, self.position_options = o.weights, o.names, o.take, o.position
  self.resize = o.resize
  self.settings = {}
  for key, value in pairs(o) do
    if key ~= "weights" then self.settings[key] = value end
  end

  self.patch_embedding = PatchEmbedding(o.channels, o.patch, o.width)
  self.class_token = module.parameter({ 1, 1, o.width }, initialise.normal(0.02))
  if o.registers > 0 then
    self.register_tokens = module.parameter({ 1, o.registers, o.width }, initialise.normal(0.02))
  end
  self.position = position_parameter(o.stored, o.width)
  self.blocks = {}
  for k = 1, o.depth do self.blocks[k] = Block(o, hidden_width(o)) end
  self.norm = LayerNorm(o.width, { epsilon = EPSILON })
  if o.classes then self.head = Linear(o.width, o.classes) end
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
--- model's own size).
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

--- Positions of the class token [1,1,D] and of the patches [1,rows·columns,D], resampled where the grid is another.
local function positions(self, grid, dtype)
  local position = self.position:to(dtype)
  local patches = ops.resize_tokens(position, {
    from = self.stored, to = grid, skip = 1, mode = "bicubic", antialias = self.position_options.antialias,
  })
  return position:narrow(2, 1, 1), patches
end

--- Tokens [B,prefix+N,D] of preprocessed pictures: class, registers (which have no position), patches.
local function embed(self, x)
  local batch, grid = x.shape[1], { x.shape[3] / self.patch, x.shape[4] / self.patch }
  local class_position, patch_positions = positions(self, grid, x.dtype)
  local class = self.class_token:to(x.dtype) + class_position
  local parts = { class:expand { batch, 1, self.width } }
  if self.register_tokens then
    parts[2] = self.register_tokens:to(x.dtype):expand { batch, self.registers, self.width }
  end
  parts[#parts + 1] = self.patch_embedding(x) + patch_positions
  return ops.concat(parts, 2)
end

--- Tokens after the final norm [B,prefix+N,D], for preprocessed pictures. Publishes "block i" and "qkv of block i".
function Vit:tokens(x)
  local h = embed(self, x)
  for number, block in ipairs(self.blocks) do
    h = block(h, number)
    taps.publish("block " .. number, h)
  end
  return self.norm(h)
end

local feature_rules = {
  layers = { "counts", {} },
  logits = { "counts", {} },
  class_token = { "boolean", false },
  input = { "size" },
  grid = { "counts" },
}

--- Logits q·kᵀ/√d of the patch tokens alone, [B,H,N,N], out of a packed qkv [B,prefix+N,3,H,d].
function Vit:logits(qkv)
  local q, k = taps.queries_and_keys(qkv)
  local patches = qkv.shape[2] - self.prefix
  q = q:narrow(2, self.prefix + 1, patches):permute { 1, 3, 2, 4 }
  k = k:narrow(2, self.prefix + 1, patches):permute { 1, 3, 4, 2 }
  return ops.mul(ops.matmul(q, k), 1 / math.sqrt(self.head_size))
end

--- Patch tokens after the final norm [B,N,D] of pictures [B,C,H,W] in [0,1], and a table of what else was asked for:
--- `qkv` by layer (packed, [B,prefix+N,3,H,d], the first `teacher.prefix` tokens being class and registers), `logits`
--- by layer, `class_token` [B,D].
--- `grid` is the patch grid to work on, { rows, columns }; or `input` the size in pixels; by default the model's own.
---@param options? { layers?: integer[], logits?: integer[], class_token?: boolean, input?: integer|integer[],
---  grid?: integer[] }
function Vit:features(images, options)
  options = check.options(self.name .. ".features", options or {}, feature_rules)
  local input = options.grid and self:grid_input(options.grid) or options.input
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

--- Class logits [B,classes] of pictures [B,C,H,W] in [0,1].
function Vit:classify(images, input)
  if not self.head then core.fail("%s: no head; give the option 'classes'", self.name) end
  local tokens = self:tokens(self:preprocess(images, input))
  return self.head(tokens:select(2, 1))
end

--- A model called is a model asked for its features.
function Vit:forward(images, options) return self:features(images, options) end

-- ---- weights -------------------------------------------------------------------------------------------------

--- The file as if its positions had a row for the class token, of zeros: where timm folds that row into the class token
--- (DINOv2 with registers), the tensor `place` holds the patches' alone.
local function with_class_row(self, file, place)
  local entry = file.entries[place]
  local shape = entry and entry.shape
  local side = shape and #shape == 3 and math.sqrt(shape[2])
  if not side or not (side % 1 == 0 or shape[2] + 1 == self.position.shape[2]) then return file end
  local entries = tables.merged(file.entries,
    { [place] = tables.merged(entry, { shape = { shape[1], shape[2] + 1, shape[3] } }) })
  local function read(_, name)
    local t = file:read(name)
    if name ~= place then return t end
    return ops.concat({ ops.fill({ shape[1], 1, shape[3] }, { value = 0, dtype = t.dtype }), t }, 2)
  end
  return setmetatable({ entries = entries, read = read }, { __index = file })
end

--- Takes over the position grid that the weights file has, before anything refers to the parameter.
local function adopt_stored_grid(self, file, place)
  local entry = file.entries[place]
  local shape = entry and entry.shape
  if not shape or #shape ~= 3 or shape[2] == self.position.shape[2] then return end
  local side = math.sqrt(shape[2] - 1)
  if side % 1 ~= 0 then
    core.fail("%s: %s %s is not a square grid, with or without a class token; give the option 'stored'",
      file.path, place, core.shape_text(shape))
  end
  self.stored = { side, side }
  self.position = position_parameter(self.stored, self.width)
  self:assign_names()
end

--- Materialises from the weights file, which must be there.
---@param options? { dtype?: string, device?: string, purpose?: string }
function Vit:load(options)
  if not self.weights then core.fail("%s: no weights to load; give the option 'weights'", self.name) end
  return self:materialise(options)
end

--- As for every module; a model with a weights file reads its parameters from there.
function Vit:materialise(options)
  if not self.weights then return module.Module.materialise(self, options) end
  local file = weights.open(self.weights)
  local names = self.names == "dinov2" and self.settings.swiglu and "dinov2_swiglu" or self.names
  local kind = weights.kind(file, "vit", { names = names, take = self.take })
  local place = kind.prefix .. weights.public_name(kind.names, "position")
  file = with_class_row(self, file, place)
  adopt_stored_grid(self, file, place)
  local result = module.Module.materialise(self, tables.merged({ initialise = false }, options))
  weights.load(file, self, { names = kind.names, prefix = kind.prefix })
  return result
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
    build(self, name, tables.merged(defaults, options, fixed))
    return self
  end
end

---@class perigee.models
---@field vit fun(options: perigee.VitOptions): perigee.Vit
---@field vit_tiny_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_small_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_base_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
---@field vit_large_patch16_224 fun(options?: perigee.VitNamedOptions): perigee.Vit
local M = { vit = Vit }

local sizes = { tiny = { 192, 3, 12 }, small = { 384, 6, 12 }, base = { 768, 12, 12 }, large = { 1024, 16, 24 } }
for size, w in pairs(sizes) do
  local name = ("vit_%s_patch16_224"):format(size)
  M[name] = Vit.named(name, { width = w[1], heads = w[2], depth = w[3], patch = 16 }, { stored = 14 })
end
return M
