--- −mean cos(p, z): the feature alignment loss of REPA.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local strided = { p = true, z = true }
local function own_dtype(a) return a.p.dtype end

local backward = op.define {
  name = "feature_alignment_backward",
  part = "alignment",
  inputs = { "coefficient", "inverse_norm_p", "inverse_norm_z", "cosine", "p", "z" },
  outputs = { "dp" },
  strided = strided,
  instance = own_dtype,
  inplace = { dp = "p" },
  shape = function(a) return { { a.p.shape, a.p.dtype } } end,
  flops = function(a) return 4 * op.numel(a.p.shape) end,
}

local feature_alignment = op.define {
  name = "feature_alignment",
  part = "alignment",
  inputs = { "p", "z" },
  outputs = { "loss", "inverse_norm_p", "inverse_norm_z", "cosine" },
  strided = strided,
  shape = function(a)
    op.expect_one_dtype("feature_alignment", a, { "p", "z" })
    if #a.p.shape ~= 3 or not op.same_shape(a.p.shape, a.z.shape) then
      fail("feature_alignment: the student's features are %s, the teacher's %s; both must be [B,N,Z]", text(a.p.shape),
        text(a.z.shape))
    end
    local rows, stat = { a.p.shape[1], a.p.shape[2] }, op.stat(a.p.dtype)
    return { { {}, stat }, { rows, stat }, { rows, stat }, { rows, stat } }
  end,
  vjp = function(n, dloss)
    if n:needs "z" then
      fail "feature_alignment: the teacher's features have no gradient; stop it with ops.stop_gradient"
    end
    return { p = backward(dloss, n.inverse_norm_p, n.inverse_norm_z, n.cosine, n.p, n.z) }
  end,
  plain = function(a)
    local function unit(x) return x / ops.maximum(ops.sqrt(ops.sum(x * x, -1, { keep = true })), 1e-12) end
    local p, z = unit(a.p:to(op.stat(a.p.dtype))), unit(a.z:to(op.stat(a.p.dtype)))
    return -ops.mean(ops.sum(p * z, -1))
  end,
  flops = function(a) return 6 * op.numel(a.p.shape) end,
}

return {
  --- −mean over images and tokens of cos(p, z): p [B,N,Z] the student's projected features, z the teacher's, frozen.
  feature_alignment = function(p, z) return feature_alignment(op.rows_in_one_piece(p), op.rows_in_one_piece(z)) end,
}
