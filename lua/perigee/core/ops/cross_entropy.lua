--- Cross-entropy of logits [R,C] with labels [R].
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local backward = op.define {
  name = "cross_entropy_backward",
  inputs = { "dloss", "logits", "labels", "lse" },
  outputs = { "dlogits" },
  floats = { "smoothing" },
  inplace = { dlogits = "logits" },
  instance = function(n) return n.inputs[2].dtype end,
  shape = function(a) return { { a.logits.shape, a.logits.dtype } } end,
  flops = function(a) return 5 * op.numel(a.logits.shape) end,
}

local cross_entropy = op.define {
  name = "cross_entropy",
  inputs = { "logits", "labels" },
  outputs = { "loss", "lse" },
  floats = { "smoothing" },
  shape = function(a)
    local logits, labels = a.logits.shape, a.labels.shape
    if #logits ~= 2 or #labels ~= 1 or logits[1] ~= labels[1] then
      op.fail("cross_entropy: logits are %s, labels %s; expected [rows,classes] and [rows]", op.shape_text(logits),
        op.shape_text(labels))
    end
    if a.labels.dtype ~= "int32" and a.labels.dtype ~= "int64" then
      op.fail("cross_entropy: labels are %s; they must be int32 or int64", a.labels.dtype)
    end
    local stat = op.stat(a.logits.dtype)
    return { { {}, stat }, { { logits[1] }, stat } }
  end,
  vjp = function(n, dloss)
    return { logits = backward(dloss, n.logits, n.labels, n.lse, { smoothing = n.smoothing }) }
  end,
  plain = function(a)
    local classes = a.logits.shape[2]
    local hits = ops.equal(ops.unsqueeze(a.labels, -1), ops.arange(classes, { dtype = a.labels.dtype }))
    local target = ops.cast(hits, a.logits.dtype) * (1 - a.smoothing) + a.smoothing / classes
    return ops.mean(-ops.sum(target * ops.log_softmax(a.logits), -1))
  end,
  flops = function(a) return 5 * op.numel(a.logits.shape) end,
}

return {
  --- The mean over rows of −log softmax(logits)[label]. Labels count from 0. Options: smoothing (0): this share of the
  --- target is spread evenly over all classes.
  ---@param options? { smoothing?: number }
  cross_entropy = function(logits, labels, options)
    local o = op.options("cross_entropy", options, { smoothing = 0 })
    if type(o.smoothing) ~= "number" or o.smoothing < 0 or o.smoothing > 1 then
      op.fail("cross_entropy: smoothing is %s; expected a number from 0 to 1", tostring(o.smoothing))
    end
    if not (op.is_operand(logits) and op.is_operand(labels)) then
      op.fail "cross_entropy: expected logits and labels, two tensors"
    end
    return cross_entropy(logits, labels, { smoothing = o.smoothing })
  end,
}
