--- The Inception network that FID and its relatives are defined by (Szegedy et al. 2015, arXiv 1512.00567):
--- TensorFlow's inception-2015-12-05, with 1008 outputs. It differs from torchvision's: mean pools don't count the
--- padding, and the last block pools the largest. A convolution's batch norm (epsilon 1e-3) is folded into weight and
--- bias when weights are loaded.
---
--- Weights are read from TensorFlow's own classify_image_graph_def.pb, or from its PyTorch form
--- weights-inception-2015-12-05-6726825d.pth (torch-fidelity's; pytorch-fid's pt_inception-... is the same file).
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local initialise = require "perigee.nn.initialise"
local layout = require "perigee.core.layout"
local module = require "perigee.nn.module"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"
local weights = require "perigee.io.weights"

local EPSILON = 1e-3
local FEATURES, CLASSES = 2048, 1008
local SPATIAL = 7 -- channels of the spatial features
local SIDE = 299

-- ---- what the network is made of ----------------------------------------------------------------------------------

--- A convolution: its name in PyTorch's form, its place in TensorFlow's graph, its outputs and its window. Its padding
--- keeps the size, or, with `valid` and with a stride, is none.
local function conv(name, graph, outputs, window, options)
  window = type(window) == "table" and window or { window, window }
  options = options or {}
  local valid = options.valid or options.stride
  return { name = name, graph = graph, outputs = outputs, window = window, stride = options.stride or 1,
    down = valid and 0 or (window[1] - 1) / 2, across = valid and 0 or (window[2] - 1) / 2 }
end

local STEM = {
  conv("Conv2d_1a_3x3", "conv", 32, 3, { stride = 2 }), conv("Conv2d_2a_3x3", "conv_1", 32, 3, { valid = true }),
  conv("Conv2d_2b_3x3", "conv_2", 64, 3), "shrink", conv("Conv2d_3b_1x1", "conv_3", 80, 1),
  conv("Conv2d_4a_3x3", "conv_4", 192, 3, { valid = true }), "shrink",
}

-- A block is a list of branches, whose results are concatenated. A branch is a sequence of convolutions; "mean",
-- "largest": a pool of 3x3 that keeps the size; "shrink": the largest of 3x3 with stride 2. Its last convolutions may
-- be a fork, a list of two that both see what is before them.

local function block_a(pooled)
  return {
    { conv("branch1x1", "conv", 64, 1) },
    { conv("branch5x5_1", "tower/conv", 48, 1), conv("branch5x5_2", "tower/conv_1", 64, 5) },
    { conv("branch3x3dbl_1", "tower_1/conv", 64, 1), conv("branch3x3dbl_2", "tower_1/conv_1", 96, 3),
      conv("branch3x3dbl_3", "tower_1/conv_2", 96, 3) },
    { "mean", conv("branch_pool", "tower_2/conv", pooled, 1) },
  }
end

local function block_b()
  return {
    { conv("branch3x3", "conv", 384, 3, { stride = 2 }) },
    { conv("branch3x3dbl_1", "tower/conv", 64, 1), conv("branch3x3dbl_2", "tower/conv_1", 96, 3),
      conv("branch3x3dbl_3", "tower/conv_2", 96, 3, { stride = 2 }) },
    { "shrink" },
  }
end

local function block_c(c)
  local across, down = { 1, 7 }, { 7, 1 }
  return {
    { conv("branch1x1", "conv", 192, 1) },
    { conv("branch7x7_1", "tower/conv", c, 1), conv("branch7x7_2", "tower/conv_1", c, across),
      conv("branch7x7_3", "tower/conv_2", 192, down) },
    { conv("branch7x7dbl_1", "tower_1/conv", c, 1), conv("branch7x7dbl_2", "tower_1/conv_1", c, down),
      conv("branch7x7dbl_3", "tower_1/conv_2", c, across), conv("branch7x7dbl_4", "tower_1/conv_3", c, down),
      conv("branch7x7dbl_5", "tower_1/conv_4", 192, across) },
    { "mean", conv("branch_pool", "tower_2/conv", 192, 1) },
  }
end

local function block_d()
  return {
    { conv("branch3x3_1", "tower/conv", 192, 1), conv("branch3x3_2", "tower/conv_1", 320, 3, { stride = 2 }) },
    { conv("branch7x7x3_1", "tower_1/conv", 192, 1), conv("branch7x7x3_2", "tower_1/conv_1", 192, { 1, 7 }),
      conv("branch7x7x3_3", "tower_1/conv_2", 192, { 7, 1 }),
      conv("branch7x7x3_4", "tower_1/conv_3", 192, 3, { stride = 2 }) },
    { "shrink" },
  }
end

local function block_e(pool)
  local function fork(name, graph)
    return { conv(name .. "a", graph .. "/mixed/conv", 384, { 1, 3 }),
      conv(name .. "b", graph .. "/mixed/conv_1", 384, { 3, 1 }) }
  end
  return {
    { conv("branch1x1", "conv", 320, 1) },
    { conv("branch3x3_1", "tower/conv", 384, 1), fork("branch3x3_2", "tower") },
    { conv("branch3x3dbl_1", "tower_1/conv", 448, 1), conv("branch3x3dbl_2", "tower_1/conv_1", 384, 3),
      fork("branch3x3dbl_3", "tower_1") },
    { pool, conv("branch_pool", "tower_2/conv", 192, 1) },
  }
end

local BLOCKS = {
  { "Mixed_5b", "mixed", block_a(32) }, { "Mixed_5c", "mixed_1", block_a(64) }, { "Mixed_5d", "mixed_2", block_a(64) },
  { "Mixed_6a", "mixed_3", block_b() }, { "Mixed_6b", "mixed_4", block_c(128) },
  { "Mixed_6c", "mixed_5", block_c(160) }, { "Mixed_6d", "mixed_6", block_c(160) },
  { "Mixed_6e", "mixed_7", block_c(192) }, { "Mixed_7a", "mixed_8", block_d() },
  { "Mixed_7b", "mixed_9", block_e "mean" }, { "Mixed_7c", "mixed_10", block_e "largest" },
}

-- ---- modules ------------------------------------------------------------------------------------------------------

local pools = {
  mean = function(x) return ops.average_pool(x, 3, { stride = 1, padding = 1 }) end,
  largest = function(x) return ops.max_pool(x, 3, { stride = 1, padding = 1 }) end,
  shrink = function(x) return ops.max_pool(x, 3, { stride = 2 }) end,
}

local Convolution = module.class "inception convolution"

function Convolution:build(spec, inputs)
  local window = spec.window
  self.spec, self.inputs = spec, inputs
  self.weight = module.parameter({ spec.outputs, inputs, window[1], window[2] },
    initialise.uniform(math.sqrt(6 / (inputs * window[1] * window[2]))))
  self.bias = module.parameter({ spec.outputs }, initialise.zeros)
end

--- x [B,C,H,W] -> [B,O,P,Q], not negative
function Convolution:forward(x)
  local s = self.spec
  return ops.relu(ops.convolution(x, self.weight, self.bias,
    { stride = s.stride, padding = { s.down, s.down, s.across, s.across } }))
end

--- Builds a sequence's convolutions as fields of `holder`, under the names of their specs. Returns the channels that
--- come out.
local function build_sequence(holder, sequence, channels)
  for _, part in ipairs(sequence) do
    if type(part) == "table" and part.name then
      holder[part.name] = Convolution(part, channels)
      channels = part.outputs
    elseif type(part) == "table" then
      local sum = 0
      for _, spec in ipairs(part) do
        holder[spec.name] = Convolution(spec, channels)
        sum = sum + spec.outputs
      end
      channels = sum
    end
  end
  return channels
end

local function run_sequence(holder, sequence, x)
  for _, part in ipairs(sequence) do
    if type(part) == "string" then x = pools[part](x)
    elseif part.name then x = holder[part.name](x)
    else
      local results = {}
      for k, spec in ipairs(part) do results[k] = holder[spec.name](x) end
      x = ops.concat(results, 2)
    end
  end
  return x
end

local Block = module.class "inception block"

function Block:build(branches, channels)
  self.branches, self.outputs = branches, 0
  for _, branch in ipairs(branches) do self.outputs = self.outputs + build_sequence(self, branch, channels) end
end

function Block:forward(x)
  local results = {}
  for k, branch in ipairs(self.branches) do results[k] = run_sequence(self, branch, x) end
  return ops.concat(results, 2)
end

---@class perigee.Inception : perigee.Module
---@field weights string?
local Inception = module.class "inception"

---@class perigee.InceptionOptions
---@field weights? string  a file of the 2015 weights; without one, random numbers

---@class perigee.models
---@field inception fun(options?: perigee.InceptionOptions): perigee.Inception

---@param options? perigee.InceptionOptions
function Inception:build(options)
  local o = check.options("inception", options or {}, { weights = { "string" } })
  self.name, self.weights = "inception", o.weights
  local channels = build_sequence(self, STEM, 3)
  for _, entry in ipairs(BLOCKS) do
    self[entry[1]] = Block(entry[3], channels)
    channels = self[entry[1]].outputs
  end
  self.fc = { weight = module.parameter({ CLASSES, FEATURES }, initialise.uniform(math.sqrt(3 / FEATURES))),
    bias = module.parameter({ CLASSES }, initialise.zeros) }
  self:assign_names()
end

--- Features of pictures that preprocess() has made, x [B,3,299,299]: the means over the last block's 8x8 places,
--- [B,2048]; and what the ADM evaluator calls spatial, seven channels of block Mixed_6d at 17x17 places, by row, column
--- and channel, [B,2023].
---@return perigee.Tensor features, perigee.Tensor spatial
function Inception:forward(x)
  if not op.is_operand(x) or #x.shape ~= 4 or x.shape[2] ~= 3 then
    core.fail("inception: expected pictures [B,3,%d,%d], got %s", SIDE, SIDE,
      op.is_operand(x) and core.shape_text(x.shape) or type(x))
  end
  local h, spatial = run_sequence(self, STEM, x), nil
  for _, entry in ipairs(BLOCKS) do
    h = self[entry[1]](h)
    if entry[1] == "Mixed_6d" then
      spatial = h:narrow(2, 1, SPATIAL):permute({ 1, 3, 4, 2 }):reshape { x.shape[1], -1 }
    end
  end
  return ops.mean(h, { 3, 4 }), spatial
end

--- The 1008 logits of features [N,2048], without the bias, as the Inception score takes them, or with it.
---@param features perigee.Tensor
---@param options? { bias?: boolean }
function Inception:logits(features, options)
  local dtype = features.dtype
  return ops.linear(features, self.fc.weight:to(dtype),
    options and options.bias and self.fc.bias:to(dtype) or nil)
end

-- ---- preprocessing ------------------------------------------------------------------------------------------------

--- How pictures become the network's input, by the program whose numbers are wanted. All three take bytes to 299x299
--- and to [−1, 1], each in its own way, and their distances differ.
local conventions = {
  adm = function(x) -- the ADM evaluator, torch-fidelity: TensorFlow's resize of the time
    return ops.affine(ops.resize(x, { size = SIDE, corner = true }), 1 / 128, -1)
  end,
  ["pytorch-fid"] = function(x) return ops.affine(ops.resize(ops.mul(x, 1 / 255), { size = SIDE }), 2, -1) end,
  ["clean-fid"] = function(x) -- Pillow's bicubic filter, without rounding
    local resized = ops.resize(x, { size = SIDE, mode = "bicubic", antialias = true })
    return ops.affine(ops.clamp(resized, 0, 255), 1 / 128, -1)
  end,
}

Inception.conventions = tables.sorted_keys(conventions)

--- Pictures [B,3,H,W] in 0 ... 255 as the network's input [B,3,299,299].
---@param images perigee.Tensor
---@param convention? "adm"|"pytorch-fid"|"clean-fid"
function Inception:preprocess(images, convention) -- luacheck: no self
  local prepare = conventions[convention or "adm"]
    or core.fail("inception: unknown convention '%s'; expected one of %s", tostring(convention),
      table.concat(Inception.conventions, ", "))
  return prepare(images)
end

-- ---- weights ------------------------------------------------------------------------------------------------------

--- A carrier of the weights says where a convolution's six tensors and the last layer's two are.
local function read_pytorch(file, path)
  local function at(name) return file:read(path .. name) end
  return at ".conv.weight", at ".bn.weight", at ".bn.bias", at ".bn.running_mean", at ".bn.running_var"
end

local function read_graph(file, path)
  local function at(name) return file:read(path .. name) end
  return at("/conv2d_params"):permute { 4, 3, 1, 2 }, at "/batchnorm/gamma", at "/batchnorm/beta",
    at "/batchnorm/moving_mean", at "/batchnorm/moving_variance"
end

local function refuse(file, why)
  core.fail("%s: not the Inception network that FID uses: %s; expected classify_image_graph_def.pb of TensorFlow's "
    .. "inception-2015-12-05, or weights-inception-2015-12-05-6726825d.pth", file.path, why)
end

--- Which carrier a file is: true: TensorFlow's graph.
local function is_graph(file)
  if file.entries["conv/conv2d_params"] then return true end
  local last = file.entries["fc.weight"]
  if not file.entries["Conv2d_1a_3x3.conv.weight"] or not last then
    refuse(file, "it has neither 'conv/conv2d_params' nor 'Conv2d_1a_3x3.conv.weight' and 'fc.weight'")
  end
  if last.shape[1] ~= CLASSES then
    refuse(file, ("its last layer has %s classes, not %d, so it is perhaps torchvision's"):format(
      tostring(last.shape[1]), CLASSES))
  end
  return false
end

--- A convolution's weight and bias out of the file's, with the batch norm in them.
local function fold(file, convolution, path, graph)
  local weight, scale, shift, mean, variance = (graph and read_graph or read_pytorch)(file, path)
  local outputs, expected = weight.shape[1], convolution.weight.shape
  if not layout.same_shape(weight.shape, expected) then
    core.fail("%s: the weight of '%s' is %s; the network needs %s", file.path, path, core.shape_text(weight.shape),
      core.shape_text(expected))
  end
  for _, t in ipairs { scale, shift, mean, variance } do
    if #t.shape ~= 1 or t.shape[1] ~= outputs then
      core.fail("%s: the batch norm of '%s' has %s; expected [%d]", file.path, path, core.shape_text(t.shape), outputs)
    end
  end
  local factor = scale:to "float64" * ops.rsqrt(variance:to "float64" + EPSILON)
  convolution.weight:copy_(weight:contiguous():to "float64" * factor:reshape { outputs, 1, 1, 1 })
  convolution.bias:copy_(shift:to "float64" - mean:to "float64" * factor)
end

local function load_sequence(file, holder, sequence, prefix, graph)
  for _, part in ipairs(sequence) do
    for _, spec in ipairs(type(part) == "table" and (part.name and { part } or part) or {}) do
      tensor.tidy(fold, file, holder[spec.name], prefix .. (graph and spec.graph or spec.name), graph)
    end
  end
end

--- Materialises from the weights file, or with random numbers where none is named.
---@param options? { dtype?: string, device?: string, purpose?: string, seed?: integer }
function Inception:materialise(options)
  if not self.weights then return module.Module.materialise(self, options) end
  local file = weights.open(self.weights)
  local graph = is_graph(file)
  local result = module.Module.materialise(self, tables.merged({ initialise = false }, options))
  load_sequence(file, self, STEM, "", graph)
  for _, entry in ipairs(BLOCKS) do
    local prefix = graph and entry[2] .. "/" or entry[1] .. "."
    for _, branch in ipairs(entry[3]) do load_sequence(file, self[entry[1]], branch, prefix, graph) end
  end
  tensor.tidy(function()
    local weight = graph and file:read("softmax/weights"):transpose(1, 2):contiguous() or file:read "fc.weight"
    self.fc.weight:copy_(weight)
    self.fc.bias:copy_(file:read(graph and "softmax/biases" or "fc.bias"))
  end)
  return result
end

--- Materialises from the weights file, which must be there.
---@param options? { dtype?: string, device?: string, purpose?: string }
function Inception:load(options)
  if not self.weights then core.fail "inception: no weights to load; give the option 'weights'" end
  return self:materialise(options)
end

return { inception = Inception }
