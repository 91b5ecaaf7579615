--- Everyday tensor operations against PyTorch's values and gradients (tests/oracle/build_ops.py), in float64 and in
--- float32, run at once and compiled.
local oracle = require "tests.lua.oracle"
local pg = require "perigee"

local ops = pg.ops
local fixture, settings = oracle.load "ops"
local huge = math.huge

local ours = {} -- by the fixture's names: the same here

-- ---- order ----

for text, dim in pairs { ["0"] = 1, ["1"] = 2, ["-1"] = -1 } do
  ours["sort " .. text] = function(x) return x:sort(dim) end
end
ours["sort descending"] = function(x) return x:sort(-1, { descending = true }) end
for _, of in ipairs { "ties", "NaN", "int32", "uint8", "nothing" } do
  ours["sort of " .. of] = function(x) return x:sort() end
  ours["sort descending of " .. of] = function(x) return x:sort(nil, true) end
end
ours.argsort = function(x) return x:argsort(2) end
ours.topk = function(x) return x:topk(3) end
ours["topk smallest"] = function(x) return x:topk(2, 1, { smallest = true }) end
ours["topk of int64"] = function(x) return x:topk(4) end
ours.median = function(x) return x:median(), x:median(2), x:median(-1, true) end
ours["median of NaN"] = function(x) return x:median(), x:median(2), x:median(1) end
ours["median of int32"] = function(x) return x:median(), x:median(2) end
for _, of in ipairs { "int64", "uint8", "NaN", "nothing" } do
  ours["unique of " .. of] = function(x) return x:unique { inverse = true, counts = true } end
end
ours.argmax = function(x) return x:argmax(), x:argmax(2), x:argmin(1, true) end
ours["argmax of NaN"] = function(x) return x:argmax(), x:argmax(2), x:argmin(2) end

-- ---- reductions ----

local all = { all = false, ["1"] = 2, ["-1"] = -1, ["0 2"] = { 1, 3 } }
for _, name in ipairs { "sum", "mean", "max", "min", "var", "std", "logsumexp" } do
  for text, dims in pairs(all) do
    ours[name .. " " .. text] = function(x) return x[name](x, dims or nil), x[name](x, dims or nil, true) end
  end
  ours[name .. " of NaN"] = function(x) return x[name](x, 2) end
end
for text, dims in pairs(all) do
  ours["norm " .. text] = function(x) return x:norm(2, dims or nil), x:norm(2, dims or nil, { keep = true }) end
end
ours["norm of NaN"] = function(x) return x:norm(2, 2) end
ours["var population"] = function(x) return x:var(nil, { correction = 0 }), x:std(2, { correction = 0 }) end
ours["var of one"] = function(x) return x:var(), x:var(nil, { correction = 0 }) end
for text, p in pairs { ["1.0"] = 1, ["3.0"] = 3, inf = huge, ["-inf"] = -huge, ["0.0"] = 0 } do
  ours["norm of order " .. text] = function(x) return x:norm(p, 2) end
end
ours["norm of int64"] = function(x) return x:norm() end
ours["max of ties"] = function(x) return x:max(2), x:min(1) end
ours["logsumexp of extremes"] = function(x) return x:logsumexp(2) end
ours.cumsum = function(x) return x:cumsum(1), x:cumsum(2), x:cumsum(-1) end
ours["cumsum of NaN"] = function(x) return x:cumsum(2) end
ours["cumsum of nothing"] = ours["cumsum of NaN"]
ours["cumsum of uint8"] = function(x) return x:cumsum(1) end
ours.prod = function(x) return x:prod(), x:prod(2), x:prod(-1, { keep = true }) end
ours["prod with zeros"] = function(x) return x:prod(2) end
ours["prod of NaN"] = ours["prod with zeros"]
ours["prod of nothing"] = function(x) return x:prod(), x:prod(2) end
ours["prod of int32"] = function(x) return x:prod(), x:prod(1) end
ours["any all"] = function(x) return x:any(), x:all(), x:any(2), x:all(1, true) end
ours["any all of NaN"] = function(x) return x:any(2), x:all(2) end
ours["any all of nothing"] = function(x) return x:any(), x:all(), x:any(1) end
ours["sum of integers"] = function(x, y) return x:sum(), y:sum(1) end

-- ---- by element ----

for _, name in ipairs {
  "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid", "relu", "erf", "sign", "floor", "round",
  "reciprocal", "square", "atan", "neg",
} do
  ours[name] = function(x) return x[name](x) end
  ours[name .. " at edges"] = ours[name]
end
for _, name in ipairs { "add", "sub", "mul", "div", "maximum", "minimum", "remainder", "floor_divide", "pow" } do
  ours[name] = function(a, b) return ops[name](a, b) end
end
for _, name in ipairs { "maximum", "minimum", "remainder", "floor_divide", "eq", "ne", "lt", "le", "gt", "ge" } do
  ours[name .. " at edges"] = function(a, b) return ops[name](a:unsqueeze(2), b) end
end
for _, dtype in ipairs { "int32", "int64" } do
  ours["remainder of " .. dtype] = function(u, v) return u % v, u % 3, u % -3, 20 % v end
  ours["floor_divide of " .. dtype] = function(u, v)
    return u:floor_divide(v), u:floor_divide(3), u:floor_divide(-3), ops.floor_divide(20, v)
  end
end
ours["remainder of numbers"] = function(x) return x % 1.5, x % -1.5, 3 % (x + 10) end
ours.clamp = function(x) return x:clamp(-1, 1), x:clamp(0), x:clamp { max = 0.5 } end
ours["clamp at edges"] = function(x) return x:clamp(-1, 1) end
ours.where = function(mask, a, b) return ops.where(mask, a, b) end
ours.masked_fill = function(x, mask) return x:masked_fill(mask, -huge):softmax() end
ours.masked_select = function(x, mask) return x:masked_select(mask) end
ours.nonzero = function(x) return x:nonzero(), x:greater(5):nonzero() end
ours["isnan isinf isfinite"] = function(x) return x:isnan(), x:isinf(), x:isfinite() end
ours.logical = function(a, b) return ops.logical_and(a, b), a:logical_or(b), a:logical_not() end

-- ---- layout ----

ours["concat stack"] = function(a, b) return ops.concat({ a, b, a }, 2), ops.stack({ a, b }, -1) end
ours["split chunk unbind"] = function(x)
  local parts = {}
  for _, list in ipairs { x:split(3, 3), x:split({ 1, 3 }, 2), x:chunk(2, 2), x:unbind(2) } do
    for _, part in ipairs(list) do parts[#parts + 1] = part end
  end
  return unpack(parts)
end
ours["permute transpose"] = function(x) return x:permute(3, 1, 2), x:transpose(-1, 1), x[1].T end
ours["reshape expand"] = function(x)
  return x:reshape(-1, 10), x:flatten(2), x[{ {}, { 1, 1 } }]:expand(-1, 3, -1)
end
ours.tile = function(x) return x:tile(2, 3), x:tile(2), x:tile { 2, 1, 2 } end
ours["tile zero times"] = function(x) return x:tile(0, 2) end
ours.roll = function(x) return x:roll(1, 1), x:roll(-2, -1), x:roll({ 1, 2 }, { 1, 2 }), x:roll(3) end
ours.flip = function(x) return x:flip(1), x:flip(1, 3) end
for _, k in ipairs { 0, 1, -2 } do
  ours["tril triu " .. k] = function(x) return x:tril(k), x:triu(k) end
end
ours.diagonal = function(x) return x:diagonal(), x:diagonal(1, 3) end
ours.index = function(x) return x[1], x[{ -1, { 2, 3 } }], x[{ {}, { 1, -1, 2 }, 5 }], x[2][3][4] end
ours["index by tensors"] = function(x, i) return x[i], x:index_select(2, i), x[2][i] end
ours["index by mask"] = function(x, mask) return x[mask:not_equal(0)] end
ours.gather = function(x, i) return x:gather(2, i) end
ours.scatter_add = function(x, i, source) return x:scatter_add(1, i, source) end
ours.one_hot = function(i) return i:one_hot(3), i:one_hot(5) end

-- ---- products ----

ours.matmul = function(a, b) return a:matmul(b), a[1]:matmul(b), a:matmul(b[2]) end
ours["matmul of vectors"] = function(a, v, w) return a[1]:mv(v), v:dot(w), ops.einsum("i,j->ij", v, w) end
for name in pairs(settings.cases) do
  local equation = name:match "^einsum (.*)"
  if equation then ours[name] = function(...) return ops.einsum(equation, ...) end end
end

-- ---- what is compared -------------------------------------------------------------------------------------------

local function numbers(t) return t:reshape(-1):totable() end

--- An error unless two tensors agree: NaN and infinities in the same places, whole numbers equal, the rest within 1e-6
--- of the numbers' size.
local function near(what, got, expected)
  local a, b, size, count = numbers(got), numbers(expected), 0, 0
  assert(#a == #b, ("%s: %d elements, PyTorch's has %d"):format(what, #a, #b))
  for _, y in ipairs(b) do
    if y == y and math.abs(y) < huge then size, count = size + y ^ 2, count + 1 end
  end
  local scale = math.sqrt(size / math.max(count, 1))
  for k, y in ipairs(b) do
    local x = a[k]
    local fine = x == y or (x ~= x and y ~= y) or math.abs(x - y) <= 1e-6 * (math.abs(y) + scale)
    assert(fine, ("%s: element %d is %.9g, PyTorch's %.9g"):format(what, k, x, y))
  end
end

local function described(name, what, got, spec, real)
  local dtype = spec[1] == "real" and real or spec[1]
  assert(got.dtype == dtype, ("%s: %s is %s, PyTorch's is %s"):format(name, what, got.dtype, dtype))
  assert.same(spec[2], got.shape, name .. ": " .. what)
end

local function inputs_of(name, case, real)
  local inputs = {}
  for k, spec in ipairs(case.inputs) do
    local x = fixture[("%s.in%d"):format(name, k)]
    inputs[k] = x:reshape(spec[2]):to(spec[1] == "real" and real or spec[1])
  end
  return inputs
end

local eager = { unique = true, nonzero = true, masked_select = true, ["index by mask"] = true } -- not in a trace

local function check(name, real)
  local case, inputs = settings.cases[name], inputs_of(name, settings.cases[name], real)
  local function compare(results, how)
    assert.equal(#case.outputs, #results, name)
    for k, spec in ipairs(case.outputs) do
      described(name, "result " .. k, results[k], spec, real)
      near(("%s in %s, result %d%s"):format(name, real, k, how), results[k], fixture[("%s.out%d"):format(name, k)])
    end
  end
  compare({ ours[name](unpack(inputs)) }, "")
  if eager[name] or eager[name:match "^%w+"] then return end
  compare({ pg.compile(ours[name], inputs)(unpack(inputs)) }, " compiled")
end

local function check_gradients(name, real)
  local case, inputs = settings.cases[name], inputs_of(name, settings.cases[name], real)
  local wrt, places = {}, {}
  for k, spec in ipairs(case.inputs) do
    if spec[3] then wrt[#wrt + 1], places[#places + 1] = inputs[k], k end
  end
  if #wrt == 0 then return end
  local gradients = pg.grad(function(...)
    local arguments, sum = { unpack(inputs) }, nil
    for k, v in ipairs { ... } do arguments[places[k]] = v end
    for k, y in ipairs { ours[name](unpack(arguments)) } do
      local upstream = fixture[("%s.upstream%d"):format(name, k)]
      if upstream then
        local part = (y * upstream:reshape(y.shape):to(real)):sum()
        sum = sum and sum + part or part
      end
    end
    return sum
  end, wrt)
  for k, place in ipairs(places) do
    near(("%s in %s, gradient %d"):format(name, real, place), gradients[k], fixture[("%s.grad%d"):format(name, place)])
  end
end

describe("as PyTorch:", function()
  for name in pairs(settings.cases) do
    it(name, function()
      assert(ours[name], "the fixture has a case that nothing here answers to")
      for _, real in ipairs { "float64", "float32" } do
        check(name, real)
        check_gradients(name, real)
      end
    end)
  end

  it("no case is left out", function()
    for name in pairs(ours) do assert(settings.cases[name], name .. " is not in the fixture") end
  end)

  it("the dtypes in which two tensors meet", function()
    for pair, expected in pairs(settings.promotions) do
      local a, b, scalar = pair:match "^(%w+) (%w+) ?(%w*)$"
      local x, y = pg.ones({ 2 }, a), pg.ones(scalar == "scalar" and {} or { 2 }, b)
      assert.same({ pair, expected }, { pair, { (x + y).dtype, (x / y).dtype } })
    end
  end)
end)
