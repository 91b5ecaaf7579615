--- A model whose forward pass computes with its parameters before it uses them: a weight normalised and scaled, used at
--- both ends, a slice of a table of positions, exp(log_scale), sigmoid(gain), 1 + scale, the shares of a softmax; one
--- linear layer and one gain in both blocks; one frozen parameter; a loss of parameters alone. The same as
--- tests/oracle/build_parameters.py.
local pg = require "perigee"
local nn, ops = pg.nn, pg.ops

local o = pg.options {
  { "precision", "float32", "float32, bf16 or float64" },
  { "micro", 4, "images a pass, of 4" },
  { "recompute", false, "compute blocks again in the backward pass" },
  { "total", 10, "steps" },
}

local SIDE, WIDTH = 4, 8

local Block = nn.class "block"
function Block:build(shared, gain)
  self.shared, self.gain = shared, gain
  self.scale = nn.parameter({ WIDTH }, nn.initialise.zeros)
end
function Block:forward(h, log_scale) -- [B,N,D]
  local normed = h / ops.sqrt(h:square():mean(-1, { keep = true }) + 1e-6) * (1 + self.scale)
  return h + ops.silu(self.shared(normed)) * self.gain:sigmoid() * ops.exp(log_scale)
end

local Model = nn.class "model"
function Model:build()
  self.channels, self.size, self.classes, self.null_label = 3, { SIDE, SIDE }, 3, 3
  self.depth, self.width, self.grid = 2, WIDTH, { SIDE, SIDE }
  local normal = nn.initialise.normal
  self.direction, self.length = nn.parameter({ WIDTH, 3 }, normal(1)), nn.parameter({ WIDTH }, nn.initialise.ones)
  self.bias = nn.parameter({ WIDTH }, nn.initialise.zeros)
  self.position = nn.parameter({ 1, 24, WIDTH }, normal(0.3))
  self.time, self.labels = nn.parameter({ WIDTH }, normal(0.3)), nn.label_embedding(3, WIDTH, 0.3)
  self.offset = nn.parameter({ WIDTH }, normal(0.1))
  self.log_scale, self.mix = nn.parameter({ 1 }, normal(0.2)), nn.parameter({ 3 }, normal(1))
  local shared, gain = nn.linear(WIDTH, WIDTH), nn.parameter({ WIDTH }, normal(1))
  self.blocks = { Block(shared, gain), Block(shared, gain) }
  self:freeze "offset"
  self:assign_names()
end

function Model:forward(x, t, y)
  local batch, tokens = x.shape[1], SIDE * SIDE
  local norm = ops.sqrt(self.direction:square():sum(2, { keep = true }))
  local weight = self.direction / norm * self.length:reshape { WIDTH, 1 }
  local h = ops.linear(x:permute({ 1, 3, 4, 2 }):reshape { batch, tokens, 3 }, weight, self.bias)
  h = h + self.position:narrow(2, 3, tokens) + self.offset
  h = h + (t:to(x.dtype):unsqueeze(2) * self.time + self.labels(y)):unsqueeze(2)
  local share = self.mix:softmax(1)
  local sum = h * share:narrow(1, 1, 1)
  for k, block in ipairs(self.blocks) do
    if o.recompute and not pg.is_tensor(h) then h = h.program:recompute(block.forward, block, h, self.log_scale)
    else h = block(h, self.log_scale) end
    sum = sum + h * share:narrow(1, k + 1, 1)
    nn.taps.publish("block " .. k, h)
  end
  return ops.matmul(sum, weight):reshape({ batch, SIDE, SIDE, 3 }):permute { 1, 4, 2, 3 }
end

function Model:drop_labels(y, state) return self.labels:drop(y, 0.25, state) end

local gauge = pg.loss.custom {
  name = "gauge",
  compute = function(_, context)
    return context.student.log_scale:square():sum() + context.student.length:square():mean()
  end,
}

local function pictures()
  local state = pg.tensor({ 3, 0, 0 }, "int64")
  local images = (ops.random_uniform({ 32, SIDE, SIDE, 3 }, { state = state, purpose = "pictures" }) * 255):to "uint8"
  local labels = {}
  for k = 1, 32 do labels[k] = k % 3 end
  return 32, { images = { tensor = images }, labels = { tensor = pg.tensor(labels, "int64") } }
end

return pg.recipe {
  name      = "parameters",
  precision = o.precision,
  student   = Model(),
  data      = pg.data.dataset {
    name = "noise", classes = 3, channels = 3, height = SIDE, width = SIDE, batch = 4, find = pictures,
  },
  micro     = o.micro,
  optim     = pg.optim.adamw { lr = 1e-2, decay = 0.05, clip = 1 },
  ema       = 0.9,
  stages    = {
    { name = "train", losses = { { 1.0, pg.loss.flow_matching() }, { 0.1, gauge } },
      finish = pg.stop.at_step(o.total) },
  },
  every     = { log = 1 },
  sample    = { count = 4, steps = 3 },
}
