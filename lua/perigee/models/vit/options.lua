--- The options of a vision transformer (models/vit.lua), checked.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

local HALF = { 0.5, 0.5, 0.5 }

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
  class_token = { "boolean", true },
  registers = { "natural", 0 },
  layer_scale = { "boolean", false },
  epsilon = { "number", above = 0 },
  pre_norm = { "boolean", false },
  final_norm = { "boolean", true },
  patch_bias = { "boolean", true },
  gelu = { "string", "erf", choices = { "erf", "tanh", "quick" } },
  swiglu = { "boolean", false },
  mlp_ratio = { "number", 4 },
  classes = { "count" },
  mean = { "numbers", HALF },
  std = { "numbers", HALF },
  resize = { "table", {} },
  position = { "table", {} },
  test_registers = { "table" },
  low_pass = { "table" },
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
---@field resize? { mode?: "bicubic"|"bilinear", antialias?: boolean }  bicubic; false
---@field position? perigee.VitPosition
---@field test_registers? { neurons: integer[][], count?: integer }  registers without training: the neurons, as pairs
---  { block, neuron }, whose values move to `count` (1) added tokens (nn/register_neurons.lua)

---@field low_pass? { keep: number, times?: number[] }  as a teacher it sees pictures without the frequencies above
---  `keep` of the highest (nn/low_pass.lua) where the student's time t is in `times`, { low, high }: { 0, 1 }

---@class perigee.VitPosition
---@field kind? "learned"|"sincos"|"rotary"  sincos: fixed, MoCo v3's; learned
---@field antialias? boolean  where positions are resampled to another grid: true
---@field base? number        of rotary positions' periods: 100, DINOv3's

---@class perigee.VitOptions : perigee.VitNamedOptions
---@field depth integer
---@field width integer
---@field heads integer
---@field patch integer
---@field class_token? boolean       true
---@field registers? integer         0
---@field layer_scale? boolean       false
---@field epsilon? number            of the layer norms: what the file of weights is trained with, else 1e-6
---@field pre_norm? boolean          a layer norm before the blocks: false
---@field final_norm? boolean        a layer norm after them: true
---@field patch_bias? boolean        of the patch embedding: true
---@field gelu? "erf"|"tanh"|"quick" erf
---@field swiglu? boolean            false
---@field mlp_ratio? number          4

local resize_rules = {
  mode = { "string", "bicubic", choices = { "bicubic", "bilinear" } },
  antialias = { "boolean", false },
}
local position_rules = {
  kind = { "string", "learned", choices = { "learned", "sincos", "rotary" } },
  antialias = { "boolean", true },
  base = { "number", 100, above = 1 },
}
local low_pass_rules = {
  keep = { "number", required = true, least = 0, most = 1 },
  times = { "numbers", { 0, 1 }, length = 2, least = 0, most = 1 },
}
local test_register_rules = { neurons = "table", count = { "count", 1 } }

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
  if o.position.kind == "rotary" and (o.width / o.heads) % 4 ~= 0 then
    core.fail("%s: heads of size %d; rotary positions of a grid need a multiple of 4", name, o.width / o.heads)
  elseif o.position.kind == "sincos" and o.width % 4 ~= 0 then
    core.fail("%s: width %d; fixed positions need a multiple of 4", name, o.width)
  end
  if o.classes and not o.class_token then core.fail("%s: 'classes' needs a class token", name) end
  if not o.image and not o.stored then core.fail("%s: option 'image' is missing: the size of its pictures", name) end
  o.image, o.stored = o.image and check.size(o.image), o.stored and check.size(o.stored)
  o.follows_student = o.image == nil
  o.image = o.image or { o.stored[1] * o.patch, o.stored[2] * o.patch }
  if o.image[1] % o.patch ~= 0 or o.image[2] % o.patch ~= 0 then
    core.fail("%s: image %dx%d does not divide into patches of %d", name, o.image[1], o.image[2], o.patch)
  end
  o.stored = o.stored or { o.image[1] / o.patch, o.image[2] / o.patch }
end

--- The options in full, with `hidden`, the width of the perceptrons' hidden layers, and `follows_student`: the size of
--- the pictures is not given. `image` and `stored` are { height, width } and { rows, columns }.
---@param name string  of the model, for messages
---@param options perigee.VitOptions
return function(name, options)
  local o = check.options(name, options, rules)
  o.resize = check.options(name .. ".resize", o.resize, resize_rules)
  o.position = check.options(name .. ".position", o.position, position_rules)
  check_geometry(name, o)
  o.low_pass = o.low_pass and check.options(name .. ".low_pass", o.low_pass, low_pass_rules)
  o.hidden = hidden_width(o)
  if o.test_registers then
    o.test_registers = check.options(name .. ".test_registers", o.test_registers, test_register_rules)
  end
  return o
end
