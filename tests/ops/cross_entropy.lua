local core = require "perigee.core"
local door = require "perigee.core.ffi"
local safetensors = require "perigee.io.safetensors"

local plain = require("perigee.core.op").defined.cross_entropy.plain
local cases = {}
local tolerance = { float32 = 2e-6, float64 = 1e-13, bfloat16 = 2e-6 }
local gradient_tolerance = { float32 = 5e-6, bfloat16 = 2e-2 }

for _, size in ipairs {
  { 1, 1 }, { 5, 31 }, { 9, 32 }, { 9, 33 }, { 33, 10 }, { 9, 72 }, { 3, 257 }, { 130, 4 }, { 2, 2051 }, { 2, 2056 },
} do
  local rows, classes = size[1], size[2]
  for _, smoothing in ipairs { 0, 0.1 } do
    cases[#cases + 1] = {
      name = ("cross_entropy %dx%d, smoothing %g"):format(rows, classes, smoothing),
      run = function(ops, logits, labels) return ops.cross_entropy(logits, labels, { smoothing = smoothing }) end,
      inputs = {
        { shape = size }, { shape = { rows }, int = { 0, classes - 1 }, dtype = smoothing == 0 and "int64" or "int32" },
      },
      op = "cross_entropy",
      gradients = classes > 1 and { 1 } or nil,
      tolerance = tolerance,
      gradient_tolerance = gradient_tolerance,
    }
  end
end

cases[#cases + 1] = {
  name = "cross_entropy of large logits",
  run = function(ops, logits, labels) return ops.cross_entropy(logits * 300, labels) end,
  inputs = { { shape = { 7, 12 } }, { shape = { 7 }, int = { 0, 11 }, dtype = "int64" } },
  reference = function(_, logits, labels)
    return plain { logits = logits * 300, labels = labels, smoothing = 0 }
  end,
  tolerance = { float32 = 2e-6, float64 = 1e-12, bfloat16 = 2e-2 },
}

cases[#cases + 1] = {
  name = "cross_entropy against PyTorch",
  check = function()
    local ops = core.ops
    local fixture = safetensors.load(door.home .. "/tests/oracle/fixtures/basics.safetensors")
    for _, classes in ipairs { 1, 31, 33, 257 } do
      local prefix = "cross_entropy." .. classes .. "."
      local gradients, loss = core.grad(function(x) return ops.cross_entropy(x, fixture[prefix .. "labels"]) end,
        { fixture[prefix .. "logits"] })
      local expected = fixture[prefix .. "loss"]:item()
      local near = math.abs(loss:item() - expected) <= 1e-6 * math.abs(expected)
      assert(near, ("%d classes: loss %.9g, expected %.9g"):format(classes, loss:item(), expected))
      local off = (gradients[1] - fixture[prefix .. "grad"]):abs():max():item()
      assert(off <= 1e-7, ("%d classes: the gradient is off by %.3g"):format(classes, off))
    end
  end,
}

cases[#cases + 1] = { name = "cross_entropy with a label past the last class",
  run = function(ops, logits, labels) return ops.cross_entropy(logits, labels) end,
  inputs = { { shape = { 3, 4 } }, { values = { 0, 4, 1 }, dtype = "int64" } },
  error = "cross_entropy: label 4 in row 2; expected 0 to below 4" }
cases[#cases + 1] = { name = "cross_entropy with too many labels",
  run = function(ops, logits, labels) return ops.cross_entropy(logits, labels) end,
  inputs = { { shape = { 3, 4 } }, { values = { 0, 1, 1, 2 }, dtype = "int64" } },
  error = "cross_entropy: logits are [3,4], labels [4]; expected [rows,classes] and [rows]" }
cases[#cases + 1] = { name = "cross_entropy with labels of real numbers",
  run = function(ops, logits, labels) return ops.cross_entropy(logits, labels) end,
  inputs = { { shape = { 3, 4 } }, { shape = { 3 } } },
  error = "cross_entropy: labels are float32; they must be int32 or int64" }
cases[#cases + 1] = { name = "cross_entropy with a smoothing of 2",
  run = function(ops, logits, labels) return ops.cross_entropy(logits, labels, { smoothing = 2 }) end,
  inputs = { { shape = { 3, 4 } }, { shape = { 3 }, int = { 0, 3 }, dtype = "int64" } },
  error = "cross_entropy: smoothing is 2; expected a number from 0 to 1" }
return cases
