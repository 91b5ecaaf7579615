--- Our spelling of a name of PyTorch's that we don't have; for other names, the nearest of ours.
--- Names that mean the same are aliases and stand with their ops.
local nearest = require "perigee.base.nearest"

local M = {}

local gradient = "gradients come from pg.grad(function(x) ... end, { x })"
local on_host = "x:totable() gives numbers, x:save \"x.npy\" a file for numpy"

local of_methods = {
  cuda = 'write x:to "cuda"', cpu = 'write x:to "cpu"',
  float = 'write x:to "float32"', double = 'write x:to "float64"', bfloat16 = 'write x:to "bfloat16"',
  half = 'write x:to "bfloat16": there is no float16', long = 'write x:to "int64"', int = 'write x:to "int32"',
  byte = 'write x:to "uint8"', bool = "write x:not_equal(0)", type = 'write x:to "float32"', astype = "write x:to",
  type_as = "write x:to(y.dtype)",
  numpy = on_host, backward = gradient, grad = gradient, requires_grad = gradient, requires_grad_ = gradient,
  retain_grad = gradient, grad_fn = gradient, data = "write x:stop_gradient()",
  nelement = "write x:numel()", element_size = "x:bytes() is that of all elements", stride = "write x.strides",
  is_cuda = "write x.device", layout = "write x.strides", len = "write x:size(1)", values = "write x:totable()",
  index_fill = "write x[index] = value", index_copy = "write x[index] = y", index_put_ = "write x[index] = y",
  masked_scatter = "write ops.where(mask, y, x)", index_add = "write x:scatter_add(dim, index, y)",
  take_along_dim = "write x:gather(dim, index)", unfold = "write x[{ {from, to, step} }]",
  normal_ = "write x:copy_(pg.randn_like(x))", uniform_ = "write x:copy_(pg.rand_like(x))",
  random_ = "write x:copy_(pg.randint(high, x.shape))",
  new_zeros = "write pg.zeros(sizes, x.dtype)", new_ones = "write pg.ones(sizes, x.dtype)",
  new_tensor = "write pg.tensor(values, x.dtype)", new_full = "write pg.full(sizes, value, x.dtype)",
  iter = "write x:unbind()", amax = "write x:max(dims)", amin = "write x:min(dims)",
}

local of_functions = {
  layer_norm = "layernorm", conv2d = "convolution", interpolate = "resize", mse_loss = "mse", binary_cross_entropy =
  "cross_entropy", scaled_dot_product_attention = "attention", hstack = "concat", vstack = "concat",
  dstack = "concat", row_stack = "concat", column_stack = "concat", amax = "max", amin = "min",
  take_along_dim = "gather", index_add = "scatter_add",
}

local of_library = {
  manual_seed = "write pg.seed(n)", no_grad = "nothing is recorded outside of pg.grad and of a run's stages",
  from_numpy = 'write pg.load "x.npy"', as_tensor = "write pg.tensor(values)", Tensor = "write pg.tensor(values)",
  optim = nil, backward = gradient, autograd = gradient,
}

local function names(...)
  local list = {}
  for _, t in ipairs { ... } do
    for name in pairs(t) do list[#list + 1] = name end
  end
  return list
end

--- The end of a message about a method or field that a tensor or value does not have.
function M.method(name, methods, own)
  if of_methods[name] then return "; " .. of_methods[name] end
  if rawget(methods, of_functions[name] or false) then return ('; did you mean "%s"?'):format(of_functions[name]) end
  return nearest.hint(name, names(methods, own))
end

--- The end of a message about an op that isn't there.
function M.op(name, ops)
  if of_functions[name] then return ('; did you mean "%s"?'):format(of_functions[name]) end
  return nearest.hint(name, names(ops))
end

--- The end of a message about a part of the library that isn't there.
function M.part(name, library, parts, ops)
  if rawget(ops, name) then return ("; it is an op: pg.ops.%s"):format(name) end
  if of_library[name] then return "; " .. of_library[name] end
  if of_functions[name] then return ("; did you mean pg.ops.%s?"):format(of_functions[name]) end
  return nearest.hint(name, names(library, parts))
end

return M
