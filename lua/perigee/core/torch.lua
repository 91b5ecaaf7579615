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
  take_along_dim = "gather", index_add = "scatter_add", nll_loss = "cross_entropy", clip = "clamp",
}

--- Names that are one expression here. x, y: tensors of two dimensions; u, v: of one; index, labels: whole numbers;
--- dim, k, low, high: numbers. tests/lua/tensors_spec.lua evaluates each.
M.written = {
  -- by element
  ceil = "-ops.floor(-x)", trunc = "ops.sign(x) * ops.floor(ops.abs(x))", frac = "ops.sign(x) * (ops.abs(x) % 1)",
  fmod = "ops.sign(x) * (ops.abs(x) % ops.abs(y))", true_divide = "x / y", rsub = "y - x", negative = "-x",
  absolute = "ops.abs(x)", sgn = "ops.sign(x)", clamp_min = "x:clamp(low)", clamp_max = "x:clamp(nil, high)",
  expm1 = "ops.exp(x) - 1", exp2 = "2 ^ x", log1p = "ops.log(1 + x)", log2 = "ops.log(x) / math.log(2)",
  log10 = "ops.log(x) / math.log(10)", tan = "ops.sin(x) / ops.cos(x)", sinh = "(ops.exp(x) - ops.exp(-x)) / 2",
  cosh = "(ops.exp(x) + ops.exp(-x)) / 2", hypot = "ops.sqrt(x * x + y * y)", lerp = "x + 0.5 * (y - x)",
  addcmul = "1 + x * y", addcdiv = "1 + x / y",
  logaddexp = "ops.maximum(x, y) + ops.log(1 + ops.exp(-ops.abs(x - y)))",
  logical_xor = "ops.not_equal(x:not_equal(0), y:not_equal(0))", bitwise_and = "ops.logical_and(x, y)",
  bitwise_or = "ops.logical_or(x, y)", bitwise_not = "ops.logical_not(x)",
  isclose = "ops.less_equal(ops.abs(x - y), 1e-8 + 1e-5 * ops.abs(y))",
  softplus = "ops.relu(x) + ops.log(1 + ops.exp(-ops.abs(x)))", leaky_relu = "ops.maximum(x, 0.01 * x)",
  elu = "ops.where(x:greater(0), x, ops.exp(x) - 1)", hardtanh = "x:clamp(-1, 1)", mish = "x * ops.tanh(ops.log(1 + "
  .. "ops.exp(x)))", bernoulli = "ops.less(pg.rand_like(x), x)", normal = "pg.randn(2, 3) * 0.5 + 1",
  -- over dimensions
  count_nonzero = "x:not_equal(0):sum()", nansum = "ops.where(x:isnan(), 0, x):sum()", trace = "x:diagonal():sum()",
  nanmean = "x[x:equal(x)]:mean()", aminmax = "x:min(dim), x:max(dim)", std_mean = "x:std(dim), x:mean(dim)",
  var_mean = "x:var(dim), x:mean(dim)", dist = "(x - y):norm()", cdist = "(x:unsqueeze(2) - y:unsqueeze(1)):norm(2, 3)",
  normalize = "x / x:norm(2, dim, true)", cosine_similarity = "(x * y):sum(dim) / (x:norm(2, dim) * y:norm(2, dim))",
  rms_norm = "x * ops.rsqrt(x:square():mean(-1, true) + 1e-6)", l1_loss = "ops.abs(x - y):mean()",
  bincount = "ops.one_hot(labels):sum(1)", diff = "x[{ {2, -1} }] - x[{ {1, -2} }]",
  -- order
  kthvalue = "x:sort(dim):select(dim, k)", quantile = "x:sort(dim):select(dim, k)", msort = "x:sort(1)",
  argwhere = "x:nonzero()",
  -- products
  outer = "ops.einsum('i,j->ij', u, v)", inner = "u:dot(v)", addmm = "1 + x:matmul(y:t())",
  baddbmm = "1 + x:matmul(y:t())", diag = "x:diagonal()",
  -- layout
  movedim = "x:permute(2, 1)", moveaxis = "x:permute(2, 1)", swapaxes = "x:transpose(1, 2)",
  swapdims = "x:transpose(1, 2)", ravel = "x:flatten()", unflatten = "x:reshape(2, -1)", ["repeat"] = "x:tile(2, 1)",
  expand_as = "x:expand(y.shape)", view_as = "x:reshape(y.shape)", reshape_as = "x:reshape(y.shape)",
  broadcast_to = "x:expand(2, -1, -1)", tensor_split = "x:chunk(2, dim)", vsplit = "x:split(1, 1)",
  hsplit = "x:split(1, 2)", fliplr = "x:flip(2)", flipud = "x:flip(1)", rot90 = "x:transpose(1, 2):flip(1)",
  repeat_interleave = "x:unsqueeze(2):expand(-1, 2, -1):flatten(1, 2)", meshgrid = "u:unsqueeze(2):expand(-1, 4)",
  take = "x:flatten():index_select(1, index)", pad = "ops.concat({ x, ops.zeros_like(x) }, dim)",
  -- what is known of a tensor
  tolist = "x:totable()", dim = "#x.shape", is_floating_point = "x.dtype == 'float32'",
}

local algebra = 'not here; x:save "x.npy" is a file for numpy'
local absent = { svd = algebra, inverse = algebra, inv = algebra, det = algebra, fft = algebra, linalg = algebra,
  cholesky = algebra, qr = algebra, asin = algebra, acos = algebra, atan2 = algebra, cross = algebra }

local of_library = {
  manual_seed = "write pg.seed(n)", no_grad = "nothing is recorded outside of pg.grad and of a run's stages",
  from_numpy = 'write pg.load "x.npy"', as_tensor = "write pg.tensor(values)", Tensor = "write pg.tensor(values)",
  backward = gradient, autograd = gradient, float16 = 'dtypes are texts: "bfloat16"',
  float32 = 'dtypes are texts: "float32"', float64 = 'dtypes are texts: "float64"',
  bfloat16 = 'dtypes are texts: "bfloat16"', int64 = 'dtypes are texts: "int64"', int32 = 'dtypes are texts: "int32"',
  long = 'dtypes are texts: "int64"', device = 'devices are texts: "cpu" or "cuda"', functional = "write pg.ops",
}

local function names(...)
  local list = {}
  for _, t in ipairs { ... } do
    for name in pairs(t) do list[#list + 1] = name end
  end
  return list
end

--- The hint for a name, whether of a method, an op or a part.
local function anywhere(name)
  if M.written[name] then return "; write " .. M.written[name] end
  return absent[name] and "; " .. absent[name]
end

--- The end of a message about a method or field that a tensor or value does not have.
function M.method(name, methods, own)
  if of_methods[name] then return "; " .. of_methods[name] end
  if anywhere(name) then return anywhere(name) end
  local ops = require "perigee.core.ops"
  local other = of_functions[name]
  if rawget(ops, name) then return ("; it is an op: ops.%s"):format(name) end
  if other then
    return ("; did you mean %s?"):format(rawget(methods, other) and ('"%s"'):format(other) or "ops." .. other)
  end
  return nearest.hint(name, names(methods, own))
end

--- The end of a message about an op that isn't there.
function M.op(name, ops)
  if of_functions[name] then return ('; did you mean "%s"?'):format(of_functions[name]) end
  if rawget(require("perigee.core.tensor").methods, name) then return ("; it is a method: x:%s"):format(name) end
  return anywhere(name) or nearest.hint(name, names(ops))
end

--- The end of a message about a part of the library that isn't there.
function M.part(name, library, parts, ops)
  if rawget(ops, name) then return ("; it is an op: pg.ops.%s"):format(name) end
  if of_library[name] then return "; " .. of_library[name] end
  if of_functions[name] then return ("; did you mean pg.ops.%s?"):format(of_functions[name]) end
  if rawget(require("perigee.core.tensor").methods, name) then return ("; it is a method: x:%s"):format(name) end
  return anywhere(name) or nearest.hint(name, names(library, parts))
end

return M
