--- MMDiT (Stable Diffusion 3, arXiv 2403.03206) as REPA and HASTE train it on MS-COCO: picture and caption are two
--- streams of tokens with weights of their own, which attend to one another together, captions in front. The time alone
--- modulates both. Weights begin as PyTorch's layers do; nothing begins at zero.
local Linear = require "perigee.nn.linear"
local PatchEmbedding = require "perigee.nn.patch_embedding"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"
local position = require "perigee.nn.position"
local program = require "perigee.core.program"
local taps = require "perigee.nn.taps"
local weights_file = require "perigee.nn.weights_file"

local EPSILON = 1e-6 -- of every layer norm

--- A linear layer that begins as torch.nn.Linear: weight and bias uniform within 1/√inputs.
local function linear(inputs, outputs, activation)
  local first = initialise.uniform(1 / math.sqrt(inputs))
  local layer = Linear(inputs, outputs, { activation = activation, initialise = first })
  layer.bias = module.parameter({ outputs }, first)
  return layer
end

-- ---- one stream of a block ---------------------------------------------------------------------------------------

local Stream = module.class "mmdit stream"

--- `last`: it gives queries, keys and values, and ends there.
function Stream:build(width, heads, hidden, last)
  self.heads, self.head_size, self.last = heads, width / heads, last
  self.modulation = linear(width, (last and 2 or 6) * width)
  self.qkv = linear(width, 3 * width)
  if last then return end
  self.projection = linear(width, width)
  self.hidden = linear(width, hidden, "gelu_tanh")
  self.output = linear(hidden, width)
end

--- Queries, keys and values of x [B,N,D] packed, [B,N,3,H,d], and the rest of the modulation by c [B,1,D] (after SiLU).
function Stream:before(x, c)
  local m = self.modulation(c):chunk(self.last and 2 or 6)
  local qkv = self.qkv(ops.layernorm_modulate(x, m[1], m[2], { epsilon = EPSILON }))
  return qkv:reshape { x.shape[1], x.shape[2], 3, self.heads, self.head_size }, m
end

--- x after what it attended to, [B,N,D].
function Stream:after(x, attended, m)
  x = ops.gated_residual(x, m[3], self.projection(attended))
  local inner = self.hidden(ops.layernorm_modulate(x, m[4], m[5], { epsilon = EPSILON }))
  return ops.gated_residual(x, m[6], self.output(inner))
end

-- ---- a block -----------------------------------------------------------------------------------------------------

local Block = module.class "mmdit block"

function Block:build(width, heads, hidden, last)
  self.context, self.picture = Stream(width, heads, hidden, last), Stream(width, heads, hidden, false)
end

--- context [B,L,D], x [B,N,D], c [B,1,D] -> both again; no context after the last block. Publishes the picture's own
--- queries, keys and values: attention alignment compares the logits among them.
function Block:forward(context, x, c, number)
  local words, batch, width = context.shape[2], x.shape[1], x.shape[3]
  local context_qkv, context_m = self.context:before(context, c)
  local qkv, m = self.picture:before(x, c)
  taps.publish("qkv of block " .. number, qkv)
  local joint = ops.concat({ context_qkv, qkv }, 2)
  local attended = ops.attention(joint, { scale = 1 / math.sqrt(self.picture.head_size) })
  attended = attended:reshape { batch, words + x.shape[2], width }
  local moved = self.picture:after(x, attended:narrow(2, words + 1, x.shape[2]), m)
  if self.context.last then return nil, moved end
  return self.context:after(context, attended:narrow(2, 1, words), context_m), moved
end

-- ---- the output --------------------------------------------------------------------------------------------------

local Final = module.class "mmdit output"

function Final:build(width, outputs)
  self.modulation, self.projection = linear(width, 2 * width), linear(width, outputs)
end

function Final:forward(x, c)
  local m = self.modulation(c):chunk(2)
  return self.projection(ops.layernorm_modulate(x, m[1], m[2], { epsilon = EPSILON }))
end

-- ---- the model ---------------------------------------------------------------------------------------------------

---@class perigee.MmditOptions
---@field width? integer        768
---@field depth? integer        24
---@field heads? integer        24
---@field patch? integer        2
---@field channels? integer     4
---@field size? integer|integer[]  of the input: 32, or { height, width }
---@field words? integer        tokens of a caption: 77
---@field text_width? integer   of a caption's token: 768, of CLIP L/14
---@field empty? string         .npy of the empty caption's features, [words,text_width], for absent captions:
---  zeros, where none is given
---@field drop? number          share of the captions that training replaces by it: 0.1
---@field mlp_ratio? number     4
---@field time_features? integer  width of the time's sinusoids: 256
---@field recompute? boolean    compute blocks again in the backward pass
---@field weights? string       a file of weights to start from (docs/weights.md)
---@field names? string         the table of names of that file; by default it is recognised
---@field take? string          the part of the file: "ema" or "model"

local rules = {
  width = { "count", 768 }, depth = { "count", 24 }, heads = { "count", 24 }, patch = { "count", 2 },
  channels = { "count", 4 }, size = { "size", 32 }, words = { "count", 77 }, text_width = { "count", 768 },
  empty = { "string" }, drop = { "fraction", 0.1 }, mlp_ratio = { "number", 4 }, time_features = { "count", 256 },
  recompute = { "boolean", false }, weights = { "string" }, names = { "string", "auto" }, take = { "string" },
}

---@class perigee.models
---@field mmdit fun(options?: perigee.MmditOptions): perigee.Mmdit

---@class perigee.Mmdit : perigee.Module
local Mmdit = module.class "mmdit"
Mmdit.public_names = "repa_mmdit" -- of io/names

--- The empty caption's features, read when the model gets its memory.
local function empty_caption(options)
  local shape = { options.words, options.text_width }
  return module.buffer(shape, function()
    if not options.empty then return ops.fill(shape, { value = 0, dtype = "float32" }) end
    local read = require("perigee.io.npy").load(options.empty)
    if core.shape_text(read.shape) ~= core.shape_text(shape) then
      core.fail("%s: the empty caption is %s; expected %s", options.empty, core.shape_text(read.shape),
        core.shape_text(shape))
    end
    return read:to "float32"
  end)
end

--- An error unless the sizes fit together.
local function check_sizes(o, size)
  if size[1] % o.patch ~= 0 or size[2] % o.patch ~= 0 then
    core.fail("mmdit: size %dx%d does not divide into patches of %d", size[1], size[2], o.patch)
  end
  if o.width % o.heads ~= 0 then core.fail("mmdit: width %d does not divide into %d heads", o.width, o.heads) end
  if o.width % 4 ~= 0 then
    core.fail("mmdit: width %d is not a multiple of 4, which its position embedding needs", o.width)
  end
end

---@param options? perigee.MmditOptions
function Mmdit:build(options)
  local o = check.options("mmdit", options or {}, rules)
  local size = check.size(o.size)
  check_sizes(o, size)
  self.name, self.settings = "mmdit", o
  for _, key in ipairs { "width", "depth", "heads", "patch", "channels", "words", "text_width", "time_features",
    "recompute", "weights", "names", "take" } do self[key] = o[key] end
  self.head_size, self.size, self.grid = o.width / o.heads, size, { size[1] / o.patch, size[2] / o.patch }
  self.tokens = self.grid[1] * self.grid[2]
  self.no_text = empty_caption(o)
  self.inputs = { { "text", shape = { o.words, o.text_width }, null = self.no_text, drop = o.drop } }

  local inputs = o.channels * o.patch ^ 2
  local first = initialise.uniform(1 / math.sqrt(inputs))
  self.patch_embedding = PatchEmbedding(o.channels, o.patch, o.width)
  self.patch_embedding.weight = module.parameter({ o.width, inputs }, first,
    { public_shape = { o.width, o.channels, o.patch, o.patch } })
  self.patch_embedding.bias = module.parameter({ o.width }, first)
  self.position = module.buffer({ 1, self.tokens, o.width }, function()
    return position.sincos_2d(o.width, self.grid[1], self.grid[2])
  end)
  self.time_hidden, self.time_output = linear(o.time_features, o.width, "silu"), linear(o.width, o.width)
  self.text_embedding = linear(o.text_width, o.width)
  self.blocks = {}
  for k = 1, o.depth do
    self.blocks[k] = Block(o.width, o.heads, math.floor(o.width * o.mlp_ratio), k == o.depth)
  end
  self.final = Final(o.width, inputs)
  self:assign_names()
end

--- The prediction [B,C,H,W] for x [B,C,H,W] at times t [B] and captions text [B,words,text_width]. Publishes "block i"
--- and "qkv of block i", of the picture's tokens.
function Mmdit:forward(x, t, text)
  local batch = x.shape[1]
  if #text.shape ~= 3 or text.shape[1] ~= batch or text.shape[3] ~= self.text_width then
    core.fail("mmdit: text is %s; expected [%d,words,%d]", core.shape_text(text.shape), batch, self.text_width)
  end
  local h = self.patch_embedding(x) + self.position:to(x.dtype)
  taps.publish("embedded", h)
  local features = ops.timestep_embedding(t, { width = self.time_features, dtype = x.dtype })
  local conditioning = self.time_output(self.time_hidden(features))
  taps.publish("conditioning", conditioning)
  local c = ops.silu(conditioning):reshape { batch, 1, self.width }
  local context = self.text_embedding(text)
  for number, block in ipairs(self.blocks) do
    if self.recompute and program.is_value(h) then
      context, h = h.program:recompute(block.forward, block, context, h, c, number)
    else context, h = block(context, h, c, number) end
    taps.publish("block " .. number, h)
  end
  return ops.unpatchify(self.final(h, c), {
    patch = self.patch, order = "channels_last", channels = self.channels, size = self.size,
  })
end

--- As for every module; a model with a weights file begins with what stands there.
function Mmdit:materialise(options)
  local loaded = options and (options.initialise == false or options.continues) -- by the caller
  if not self.weights or loaded then return module.Module.materialise(self, options) end
  return weights_file.materialise(self, "mmdit", options)
end

return { mmdit = Mmdit }
