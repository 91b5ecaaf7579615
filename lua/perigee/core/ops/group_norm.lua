--- Group normalisation of images [B,C,..], with an activation on top (kernels/group_norm/group_norm.h).
local activations = require "perigee.core.activations"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local fail, text = op.fail, op.shape_text

local INTS = { "groups", "activation" }

local backward = op.define {
  name = "group_norm_backward",
  inputs = { "dy", "x", "mean", "rstd", "weight?", "bias?" },
  outputs = { "dx", "dweight", "dbias" },
  results = 3,
  ints = INTS,
  optional_outputs = { dweight = true, dbias = true },
  inplace = { dx = "dy" },
  shape = function(a)
    op.expect_one_dtype("group_norm_backward", a, { "x", "dy", "weight", "bias" })
    local row = { a.x.shape[2] }
    return { { a.x.shape, a.x.dtype }, { row, a.x.dtype }, { row, a.x.dtype } }
  end,
  flops = function(a) return (a.activation == 0 and 14 or 40) * op.numel(a.x.shape) end,
}

local function result_shapes(a)
  op.expect_one_dtype("group_norm", a, { "x", "weight", "bias" })
  local x = a.x.shape
  if #x < 2 or op.numel(x) == 0 then
    fail("group_norm: x is %s; expected [B,C,..], and no dimension of size 0", text(x))
  elseif x[2] % a.groups ~= 0 then
    fail("group_norm: x is %s; its %d channels do not divide into %d groups", text(x), x[2], a.groups)
  end
  for _, name in ipairs { "weight", "bias" } do
    if a[name] and not op.same_shape(a[name].shape, { x[2] }) then
      fail("group_norm: x is %s, %s is %s; expected [%d]", text(x), name, text(a[name].shape), x[2])
    end
  end
  local group, stat = { x[1], a.groups }, op.stat(a.x.dtype)
  return { { x, a.x.dtype }, { group, stat }, { group, stat } }
end

--- A row [C] as it is broadcast over x [B,C,..].
local function over(row, x)
  local shape = { 1, x.shape[2] }
  for d = 3, #x.shape do shape[d] = 1 end
  return ops.reshape(row, shape)
end

local group_norm = op.define {
  name = "group_norm",
  inputs = { "x", "weight?", "bias?" },
  outputs = { "y", "mean", "rstd" },
  ints = INTS,
  floats = { "epsilon" },
  inplace = { y = "x" },
  shape = result_shapes,
  vjp = function(n, dy)
    local dx, dweight, dbias = backward(dy, n.x, n.mean, n.rstd, n.weight, n.bias,
      { groups = n.groups, activation = n.activation })
    return { x = dx, weight = n.weight and dweight, bias = n.bias and dbias }
  end,
  plain = function(a)
    local grouped = ops.reshape(a.x, { a.x.shape[1], a.groups, -1 })
    local y = ops.reshape(ops.layernorm(grouped, { epsilon = a.epsilon }), a.x.shape)
    if a.weight then y = y * over(a.weight, a.x) end
    if a.bias then y = y + over(a.bias, a.x) end
    return a.activation == 0 and y or ops.activation(y, activations.name[a.activation])
  end,
  flops = function(a) return (a.activation == 0 and 8 or 20) * op.numel(a.x.shape) end,
}

return {
  --- Normalises x [B,C,..] over groups of C/groups neighbouring channels and all their positions, and puts an
  --- activation on the result, in one pass. Options: groups (32), weight, bias [C], epsilon (1e-5), activation.
  --- Source: Wu and He 2018, arXiv 1803.08494.
  ---@param options? { groups?: integer, weight?: perigee.Tensor, bias?: perigee.Tensor, epsilon?: number,
  ---  activation?: perigee.Activation }
  group_norm = function(x, options)
    local o = op.options("group_norm", options,
      { groups = 32, weight = false, bias = false, epsilon = 1e-5, activation = false })
    if type(o.groups) ~= "number" or o.groups % 1 ~= 0 or o.groups < 1 then
      fail("group_norm: groups is %s; expected a whole number from 1", tostring(o.groups))
    elseif o.activation and not activations.number[o.activation] then
      fail("group_norm: unknown activation '%s'; expected %s", tostring(o.activation), activations.text)
    end
    return group_norm(x, o.weight, o.bias,
      { groups = o.groups, activation = o.activation and activations.number[o.activation] or 0, epsilon = o.epsilon })
  end,
}
