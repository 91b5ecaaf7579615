local joined = require "tests.lua.joined"
local core = require "perigee.core"
local fails = require("tests.lua.expect").fails
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local nn = require "perigee.nn"
local oracle = require "tests.lua.oracle"
local taps = require "perigee.nn.taps"

local ops, tensor = core.ops, core.tensor

local Pair = module.class "pair"

function Pair:build()
  self.layers = { nn.linear(3, 5), nn.linear(5, 2, { bias = false }) }
  self.offset = module.buffer({ 2 }, function() return tensor.tensor { 0.5, -0.5 } end)
  self.gain = module.parameter({ 7 }, initialise.ones)
end

function Pair:forward(x) return self.layers[2](self.layers[1](x)) + self.offset end

local function names_of(list)
  local names = {}
  for k, entry in ipairs(list) do names[k] = entry.name end
  return table.concat(names, " ")
end

describe("nn", function()
  it("holds its files' values and names the nearest where there is none", function()
    assert.equal(require "perigee.nn.swiglu", nn.swiglu)
    assert.equal(module.class, nn.class)
    fails(function() return nn.mpl end, "unknown layer 'mpl'; expected one of attention, conv2d, ",
      'did you mean "mlp"?')
    fails(function() return nn.paramter end, 'did you mean "parameter"?')
  end)
end)

describe("modules", function()
  it("name parameters by the fields on the way, in a fixed order", function()
    local pair = Pair()
    assert.equal("gain layers.1.bias layers.1.weight layers.2.weight", names_of(pair:named_parameters()))
    assert.equal("offset", names_of(pair:named_buffers()))
    assert.same({ 5, 3 }, pair:parameters()["layers.1.weight"].shape)
    assert.equal(7 + 5 + 15 + 10, pair:parameter_count())
  end)

  it("order lists by position, not by digits", function()
    local layers = {}
    for k = 1, 11 do layers[k] = nn.linear(1, 1, { bias = false }) end
    local names = names_of(joined { layers = layers }:named_parameters())
    assert.truthy(names:find("layers.9.weight layers.10.weight layers.11.weight", 1, true))
  end)

  it("share one flat tensor, each parameter at a multiple of 16 elements, zeros between", function()
    local pair = Pair()
    local buffer = ops.fill({ 80 }, { value = 9, dtype = "float32" })
    local made = pair:materialise { seed = 3, buffer = buffer }
    local offsets = {}
    for k, entry in ipairs(made.layout) do offsets[k] = entry.offset end
    assert.same({ 0, 16, 32, 48 }, offsets)
    local flat = made.flat:totable()
    for k = 1, 7 do assert.equal(1, flat[k]) end
    for k = 8, 16 do assert.equal(0, flat[k]) end
    for k = 48, 48 do assert.equal(0, flat[k]) end
    for k = 59, 64 do assert.equal(0, flat[k]) end
    assert.equal(9, flat[65])
    local weight = pair:parameters()["layers.1.weight"]:totable()
    assert.equal(flat[33], weight[1][1])
    assert.equal(flat[47], weight[5][3])
    assert.has_error(function() pair:materialise { buffer = tensor.empty({ 60 }, "float32") } end)
  end)

  it("draw first values by seed and name, whatever else the model holds", function()
    local a, b, other = Pair(), joined { nested = { 1 }, layers = Pair().layers }, Pair()
    a:materialise { seed = 5 }
    b:materialise { seed = 5 }
    other:materialise { seed = 6 }
    local one = a:parameters()["layers.2.weight"]:totable()
    assert.same(one, b:parameters()["layers.2.weight"]:totable())
    assert.are_not.same(one, other:parameters()["layers.2.weight"]:totable())
    assert.are_not.same(one[1][1], a:parameters()["layers.1.weight"]:totable()[1][1])
  end)

  it("hold Xavier's bound and the given deviation", function()
    local layer = nn.linear(300, 200)
    layer:materialise { seed = 1 }
    local bound, largest, sum = math.sqrt(6 / 500), 0, 0
    for _, row in ipairs(layer.weight:totable()) do
      for _, x in ipairs(row) do largest, sum = math.max(largest, math.abs(x)), sum + x * x end
    end
    assert.is_true(largest <= bound and largest > 0.999 * bound)
    assert.is_true(math.abs(sum / 60000 / (bound ^ 2 / 3) - 1) < 0.02)
    local embedding = nn.embedding(300, 200)
    embedding:materialise { seed = 1 }
    sum = 0
    for _, row in ipairs(embedding.table:totable()) do
      for _, x in ipairs(row) do sum = sum + x * x end
    end
    assert.is_true(math.abs(math.sqrt(sum / 60000) / 0.02 - 1) < 0.01)
  end)

  it("convolve images, under PyTorch's names", function()
    local layer = nn.conv2d(3, 8, 3, { padding = 1 })
    layer:materialise { seed = 1 }
    assert.equal("bias weight", names_of(layer:named_parameters()))
    assert.same({ 8, 3, 3, 3 }, layer.weight.shape)
    local x = tensor.tensor({ 0.5 }):expand({ 2, 3, 5, 4 })
    local largest = ops.max(ops.abs(layer.weight)):item()
    assert.is_true(largest <= 1 / math.sqrt(27) and largest > 0.9 / math.sqrt(27))
    local middle = layer(x):totable()[2][7][3][2] -- the whole window is inside
    assert.is_true(math.abs(middle - (0.5 * ops.sum(layer.weight, { 2, 3, 4 }) + layer.bias):totable()[7]) < 1e-5)
    local down = nn.conv2d(3, 2, { 3, 1 }, { stride = 2, padding = { 0, 1, 0, 0 }, bias = false })
    down:materialise {}
    assert.equal("weight", names_of(down:named_parameters()))
    assert.same({ 2, 2, 2, 2 }, down(x).shape)
    local fine, message = pcall(layer, tensor.tensor { { 1, 2, 3 } })
    assert.is_false(fine)
    assert.truthy(message:find("conv2d: expected [B,3,H,W], got [1,3]", 1, true))
  end)

  it("take any activation between the layers of a perceptron", function()
    local mlp = nn.mlp(3, 5, { activation = "quick_gelu" })
    mlp:materialise { seed = 4, dtype = "float64" }
    local x = tensor.tensor({ { 1, -2, 3 } }, "float64")
    local hidden = ops.linear(x, mlp.hidden.weight, mlp.hidden.bias)
    local expected = ops.linear(hidden * ops.sigmoid(hidden * 1.702), mlp.output.weight, mlp.output.bias)
    assert.is_true((mlp(x) - expected):abs():max():item() < 1e-14)
  end)

  it("lose their storage and get it back", function()
    local pair = Pair()
    assert.is_false(pair:is_materialised())
    pair:materialise { dtype = "float64" }
    assert.equal("float64", pair.gain.dtype)
    assert.equal("float64", pair.offset.dtype)
    pair:dematerialise()
    assert.is_false(pair:is_materialised())
    assert.has_error(function() return pair(tensor.tensor { { 1, 2, 3 } }) end)
    pair:materialise {}
    assert.same({ 1, 2 }, pair(tensor.tensor { { 1, 2, 3 } }).shape)
  end)

  it("are differentiated through their parameters", function()
    local pair = Pair()
    pair:materialise { seed = 2, dtype = "float64" }
    local x = tensor.tensor({ { 1, 2, 3 } }, "float64")
    local gradients = core.grad(function(v) return ops.sum(pair(v)) end, { x }, { also = { pair.layers[1].bias } })
    local second = pair.layers[2].weight:totable()
    for k, g in ipairs(gradients[2]:totable()) do
      assert.is_true(math.abs(g - second[1][k] - second[2][k]) < 1e-12)
    end
  end)

  it("refuse options that they don't know", function()
    local fine, message = pcall(nn.linear, 3, 4, { activation = "relu" })
    assert.is_false(fine)
    assert.truthy(message:find("expected one of gelu_tanh, gelu_erf, silu, quick_gelu", 1, true))
    fine, message = pcall(function() Pair():materialise { sed = 1 } end)
    assert.is_false(fine)
    assert.truthy(message:find("unknown option 'sed'; did you mean \"seed\"?", 1, true))
    assert.truthy(message:find("nn_spec.lua:", 1, true))
  end)
end)

describe("taps", function()
  it("are kept only while somebody collects", function()
    taps.publish("a", 1)
    local first, second, collected = taps.collect(function(x)
      taps.publish("a", x)
      return "one", "two"
    end, 5)
    assert.same({ "one", "two", { a = 5 } }, { first, second, collected })
  end)

  it("reach every open collector", function()
    local inner, outer = taps.collect(function()
      taps.publish("before", 1)
      return (taps.collect(function() taps.publish("inside", 2) end))
    end)
    assert.same({ inside = 2 }, inner)
    assert.same({ before = 1, inside = 2 }, outer)
  end)

  it("refuse a name twice, close after an error, and list what there is", function()
    assert.has_error(function()
      taps.collect(function()
        taps.publish("a", 1)
        taps.publish("a", 2)
      end)
    end)
    taps.publish("a", 1)
    local fine, message = pcall(taps.read, { ["block 1"] = 1 }, "block 2")
    assert.is_false(fine)
    assert.truthy(message:find("no tap 'block 2'; the model publishes 'block 1'", 1, true))
  end)
end)

describe("labels", function()
  it("become the null label with the given probability, the same for the same state", function()
    local labels = nn.label_embedding(10, 4)
    local y = ops.fill({ 4000 }, { value = 3, dtype = "int64" })
    local state = tensor.tensor({ 7, 1, 0 }, "int64")
    local dropped = labels:drop(y, 0.25, state):totable()
    local count = 0
    for _, label in ipairs(dropped) do
      assert.is_true(label == 3 or label == 10)
      if label == 10 then count = count + 1 end
    end
    assert.is_true(math.abs(count / 4000 - 0.25) < 0.03)
    assert.same(dropped, labels:drop(y, 0.25, state):totable())
    local half = labels:drop(y:narrow(1, 1, 2000), 0.25, tensor.tensor({ 7, 1, 2000 }, "int64")):totable()
    for k = 1, 2000 do assert.equal(dropped[2000 + k], half[k]) end
    assert.equal(y, labels:drop(y, 0, state))
  end)
end)

describe("positions", function()
  it("are those of the public SiT checkpoints", function()
    for name, grid in pairs { sit_tiny = { 32, 4, 4 }, sit_odd = { 72, 3, 5 } } do
      oracle.near(name, nn.position.sincos_2d(unpack(grid)), oracle.load(name .. ".weights").pos_embed, 1e-7)
    end
  end)
end)
