--- Fused ops beyond their cases in tests/ops: against PyTorch's fixtures, what they fuse with, and their messages.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local executable = require "perigee.core.executable"
local message_of = require("tests.lua.expect").message_of
local oracle = require "tests.lua.oracle"
local program = require "perigee.core.program"
local safetensors = require "perigee.io.safetensors"

local ops, tensor = core.ops, core.tensor

local function fixture(name)
  return safetensors.load(door.home .. "/tests/oracle/fixtures/" .. name .. ".safetensors")
end

--- |a − b| / |b| over a whole tensor of n elements is at most `bound`; |a − b| / √n where |b| < √n.
local function close(a, b, bound, what)
  assert.are.same(b.shape, a.shape)
  local x, n = tensor.to_host(a:to "float64")
  local y = tensor.to_host(b:to "float64")
  local difference, size = 0, 0
  for k = 0, n - 1 do
    difference, size = difference + (x[k] - y[k]) ^ 2, size + y[k] ^ 2
  end
  local relative = math.sqrt(difference / math.max(size, n))
  assert(relative <= bound, ("%s: off by %.2e, allowed %.0e"):format(what, relative, bound))
end

--- Gradients of Σ upstream·f(inputs).
local function pull_back(f, inputs, upstream)
  return (core.grad(function(...) return ops.sum(f(...) * upstream) end, inputs))
end

describe("PyTorch's fixtures", function()
  local basics = fixture "basics"

  local function check(op, size, names, f, bound)
    local key, inputs = op .. "." .. size .. ".", {}
    for k, name in ipairs(names) do inputs[k] = basics[key .. name] end
    close(f(unpack(inputs)), basics[key .. "out"], bound, key .. "out")
    local gradients = pull_back(f, inputs, basics[key .. "upstream"])
    for k, name in ipairs(names) do
      close(gradients[k], basics[key .. "grad_" .. name], bound, key .. "grad_" .. name)
    end
  end

  for _, size in ipairs { 1, 31, 33, 257 } do
    it("layernorm of " .. size, function()
      local bound = size == 1 and 1e-4 or 1e-5 -- x's gradient is 0 there: rounding errors divided by √epsilon
      check("layernorm", size, { "x" }, function(x) return ops.layernorm(x) end, bound)
      check("layernorm_affine", size, { "x", "weight", "bias" },
        function(x, weight, bias) return ops.layernorm(x, { weight = weight, bias = bias }) end, bound)
      check("layernorm_modulate", size, { "x", "shift", "scale" }, function(x, shift, scale)
        return ops.layernorm_modulate(x, shift:reshape { 2, 1, size }, scale:reshape { 2, 1, size })
      end, bound)
    end)
  end

  it("layernorm with a large mean", function()
    check("layernorm", "offset", { "x" }, function(x) return ops.layernorm(x) end, 1e-4)
  end)

  it("convolution", function()
    local file, settings = oracle.load "convolution"
    for name, window in pairs(settings.cases) do
      local function run(x, weight, bias) return ops.convolution(x, weight, bias, window) end
      local inputs = { file[name .. ".x"], file[name .. ".weight"], file[name .. ".bias"] }
      close(run(unpack(inputs)), file[name .. ".out"], 1e-6, name .. ".out")
      local gradients = pull_back(run, inputs, file[name .. ".upstream"])
      for k, input in ipairs { "x", "weight", "bias" } do
        close(gradients[k], file[name .. ".grad_" .. input], 1e-6, name .. ".grad_" .. input)
      end
    end
  end)

  it("feature alignment", function()
    local file = fixture "feature_alignment"
    for _, name in ipairs { "width_1", "width_31", "width_33", "width_257", "sizes", "zero_teacher", "zero_student" } do
      local student, teacher = file[name .. ".student"], file[name .. ".teacher"]
      close(ops.feature_alignment(student, teacher):reshape { 1 }, file[name .. ".loss"], 1e-5, name .. ".loss")
      local gradient = core.grad(function(p) return ops.feature_alignment(p, teacher) end, { student })[1]
      local expected, rows = file[name .. ".grad"], student.shape[1] * student.shape[2]
      for r = 1, rows do -- each row by itself: they differ in size
        local function row(x) return x:reshape({ rows, x.shape[3] }):narrow(1, r, 1) end
        local scale = name == "width_1" and 1 or 1 / math.max(ops.max(ops.abs(row(expected))):item(), 1e-6)
        close(row(gradient) * scale, row(expected) * scale, 1e-5, name .. ".grad row " .. r)
      end
    end
  end)

  it("interpolant", function()
    local file = fixture "paths"
    for _, path in ipairs { "linear", "cosine" } do
      local x_t, velocity = ops.interpolant(file.x0, file.noise, file.t, { path = path })
      close(x_t, file[path .. ".x_t"], 1e-6, path .. ".x_t")
      close(velocity, file[path .. ".target"], 1e-6, path .. ".target")
    end
  end)

  it("resize", function()
    local file = fixture "resize"
    for _, case in ipairs { "14x14_to_16x16", "16x16_to_14x14", "5x7_to_9x3", "6x6_to_4x4", "3x4_to_7x7" } do
      local h, w, h2, w2 = case:match "(%d+)x(%d+)_to_(%d+)x(%d+)"
      local from, to = { tonumber(h), tonumber(w) }, { tonumber(h2), tonumber(w2) }
      local x, upstream = file[case .. ".x"], file[case .. ".upstream"]
      for _, kind in ipairs { "bilinear", "bicubic", "bilinear_antialias", "bicubic_antialias" } do
        local key = case .. "." .. kind
        local mode, antialias = kind:match "^%a+", kind:find "antialias" ~= nil
        local function images(y) return ops.resize(y, { size = to, mode = mode, antialias = antialias }) end
        close(images(x), file[key], 1e-6, key)
        close(pull_back(images, { x }, upstream)[1], file[key .. ".grad"], 1e-6, key .. ".grad")

        local function as_tokens(y)
          local s = y.shape
          return ops.contiguous(ops.permute(y, { 1, 3, 4, 2 })):reshape { s[1], s[3] * s[4], s[2] }
        end
        local function tokens(y)
          return ops.resize_tokens(y, { from = from, to = to, mode = mode, antialias = antialias })
        end
        close(tokens(as_tokens(x)), as_tokens(file[key]), 1e-6, key .. " as tokens")
        close(pull_back(tokens, { as_tokens(x) }, as_tokens(upstream))[1], as_tokens(file[key .. ".grad"]), 1e-6,
          key .. ".grad as tokens")
      end
    end
  end)
end)

describe("the gradient around a layernorm", function()
  --- The gradient's program of Σ upstream·(x + f(x)); returns its plan's ops by name, and the gradient.
  local function trace(f, x, upstream, fuse)
    local p = program.new "residual"
    local value = p:input("x", x.shape, x.dtype)
    local y = ops.tanh(value)
    local out = y + f(y)
    local gradient = core.gradient(p, { out }, { p:capture(upstream) }, { value })[1]
    local exe = executable.compile(p, { { name = "gradient", value = gradient } }, { fuse = fuse })
    local count = {}
    for _, call in ipairs(exe.plan.calls) do
      local name = call.node.definition.name
      count[name] = (count[name] or 0) + 1
    end
    return count, exe:run({ x = x }).gradient:clone(), exe
  end

  local x = tensor.tensor { { { 1, -2, 0.5, 3 }, { 0, 1, 4, -1 } } }
  local upstream = tensor.tensor { { { 1, 2, 3, 4 }, { -1, 2, 0, 1 } } }
  local shift, scale = tensor.tensor { { { 0.1, 0.2, 0.3, 0.4 } } }, tensor.tensor { { { 1, 2, -1, 0.5 } } }
  local forms = {
    layernorm_modulate = function(y) return ops.layernorm_modulate(y, shift, scale) end,
    layernorm = function(y) return ops.layernorm(y, { weight = scale:reshape { 4 } }) end,
  }
  for name, f in pairs(forms) do
    it("is added by the kernel of " .. name .. "_backward", function()
      local fused_count, fused = trace(f, x, upstream, true)
      local plain_count, plain = trace(f, x, upstream, false)
      assert.are.equal(1, plain_count.add - (fused_count.add or 0))
      close(fused, plain, 1e-6, name)
    end)
  end

  it("stays an addition where the sum's other part needs the kernel's own output", function()
    local p = program.new "loop"
    local value = p:input("x", x.shape, x.dtype)
    local dy = p:input("dy", x.shape, x.dtype)
    local backward = require("perigee.core.op").defined.layernorm_modulate_backward
    local stat = tensor.tensor { { 0.5, 0.25 } }
    local dx, dshift = backward(dy, value, stat, stat, scale, nil)
    local sum = dx + ops.contiguous(ops.expand(dshift, x.shape))
    local exe = executable.compile(p, { { name = "sum", value = sum } })
    local names = {}
    for _, call in ipairs(exe.plan.calls) do names[call.node.definition.name] = true end
    assert.is_true(names.add)
    assert.is_true(names.layernorm_modulate_backward)
  end)
end)

describe("a compiled program", function()
  local x = tensor.tensor { { 1, -2, 0.5 }, { 0.25, 3, -1 }, { 2, 0.75, -0.5 } }

  for name, f in pairs {
    ["keeps memory that a later call reads"] = function(v)
      local a = v * 2
      local b = ops.exp(a)
      return a + b
    end,
    ["keeps memory that the same call reads through another view"] = function(v)
      local a = v * 2
      return (a * a:narrow(1, 1, 1)) * v -- an output of the program has memory of its own
    end,
  } do
    it(name, function()
      assert.same(f(x):totable(), core.compile(f, { x })(x):totable())
    end)
  end

  it("keeps the gradient at an activation's output where the program returns it", function()
    local weights = { tensor.tensor { { 0.5, -1, 2 }, { 1, 0.25, -0.5 }, { -2, 1, 0 } },
      tensor.tensor { { 1, 0.5, -1 }, { -0.25, 2, 1 }, { 0.5, -1, 1 } } }
    local function run(fuse)
      local p = program.new "activation"
      local value = p:input("x", x.shape, x.dtype)
      local before = ops.matmul(value, p:capture(weights[1]))
      local after = ops.gelu(before)
      local out = ops.matmul(after, p:capture(weights[2]))
      local gradients = core.gradient(p, { out }, { p:capture(x) }, { after, before, value })
      local exe = executable.compile(p, { { name = "after", value = gradients[1] },
        { name = "before", value = gradients[2] }, { name = "input", value = gradients[3] } }, { fuse = fuse })
      return exe:run { x = x }
    end
    local fused, plain = run(true), run(false)
    for _, output in ipairs { "after", "before", "input" } do
      close(fused[output], plain[output], 1e-6, output)
    end
  end)

  --- The calls of d(Σ upstream·f(x, w))/dw, those of the backward pass after a bar.
  local function calls_of(f)
    local p = program.new "recomputation"
    local value, w = p:input("x", x.shape, x.dtype), p:capture(tensor.tensor { { 1, 2, 0 }, { 0, 1, -1 }, { 1, 0, 1 } })
    local gradient = core.gradient(p, { f(value, w) }, { p:capture(x) }, { w })[1]
    local exe = executable.compile(p, { { name = "gradient", value = gradient } })
    local forward, backward = {}, {}
    for _, call in ipairs(exe.plan.calls) do
      table.insert(call.node.backward and backward or forward, call.node.definition.name)
    end
    return table.concat(forward, " ") .. " | " .. table.concat(backward, " ")
  end

  it("recomputes up to two calls in a row for the backward pass", function()
    assert.equal("matmul | activation matmul matmul matmul add", calls_of(function(v, w)
      return ops.matmul(ops.gelu(ops.matmul(v, w)), w)
    end))
    local expected = "matmul layernorm | matmul activation layernorm matmul layernorm_backward activation_backward "
    assert.equal(expected .. "matmul add",
      calls_of(function(v, w) return ops.matmul(ops.layernorm(ops.gelu(ops.matmul(v, w))), w) end))
  end)

  it("keeps a value whose own inputs are gone by the time it is read", function()
    assert.equal("affine activation | matmul",
      calls_of(function(v, w) return ops.matmul(ops.gelu(v * 2), w) end))
  end)
end)

describe("messages", function()
  local function fails(pattern, f, ...)
    local message = message_of(f, ...)
    assert(message:find(pattern, 1, true), message)
  end
  local function empty(...) return tensor.empty({ ... }, "float32") end

  it("say what was expected and what came", function()
    fails("layernorm: x is [2,3], weight is [2]; it must be [3]", ops.layernorm, empty(2, 3), { weight = empty(2) })
    fails("layernorm: unknown option 'eps'", ops.layernorm, empty(2, 3), { eps = 1 })
    fails("layernorm: x is float32, weight is float64; they must have one dtype", ops.layernorm, empty(2, 3),
      { weight = tensor.empty({ 3 }, "float64") })
    fails("layernorm_modulate: x is [8,256,1152], scale is [8,1024]; expected [B,N,D] and [B,1,D]",
      ops.layernorm_modulate, tensor.meta { 8, 256, 1152 }, tensor.meta { 8, 1, 1152 }, tensor.meta { 8, 1024 })
    fails("gated_residual: x is [2,3,4], gate is [3,1,4]; it must be [2,1,4] or [4]", ops.gated_residual,
      empty(2, 3, 4), empty(3, 1, 4), empty(2, 3, 4))
    fails("the student's features are [2,3,4], the teacher's [2,3,5]; both must be [B,N,Z]", ops.feature_alignment,
      empty(2, 3, 4), empty(2, 3, 5))
    fails("mse: a is [2,3], b is [3,2]; they must have one shape, not empty", ops.mse, empty(2, 3), empty(3, 2))
    fails("interpolant: unknown path 'quadratic'; expected 'linear' or 'cosine'", ops.interpolant, empty(2, 3),
      empty(2, 3), empty(2), { path = "quadratic" })
    fails("interpolant: x0 is [2,3], t is float32 [3]; expected float32 [2]", ops.interpolant, empty(2, 3), empty(2, 3),
      empty(3))
    fails("patchify: images are [1,3,5,4], the patch size is 2; expected [B,C,H,W] with H and W multiples of it",
      ops.patchify, empty(1, 3, 5, 4), { patch = 2 })
    fails("unpatchify: tokens are [1,3,4]; 3 tokens with patches of 2 are not a square image: give its size",
      ops.unpatchify, empty(1, 3, 4), { patch = 2 })
    fails("resize: unknown mode 'nearest'; expected 'bilinear' or 'bicubic'", ops.resize, empty(1, 1, 2, 2),
      { size = { 3, 3 }, mode = "nearest" })
    fails("resize_tokens: x is [1,5,2]; expected [B,0 + 2·2,..]", ops.resize_tokens, empty(1, 5, 2),
      { from = { 2, 2 }, to = { 3, 3 } })
    fails("images: x is float32 [1,2,2,3]; expected uint8 [B,H,W,C] with at most 4 channels", ops.images,
      empty(1, 2, 2, 3))
  end)

  it("say what has no gradient", function()
    fails("feature_alignment: the teacher's features have no gradient", core.grad,
      function(p, z) return ops.feature_alignment(p, z) end, { empty(1, 2, 3), empty(1, 2, 3) })
    fails("interpolant: not differentiable", core.grad,
      function(x) return ops.sum((ops.interpolant(x, x, empty(1)))) end, { empty(1, 2) })
  end)
end)
