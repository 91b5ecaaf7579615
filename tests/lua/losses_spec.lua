-- The losses, paths and times against PyTorch (tests/oracle/README.md), through the functions that recipes use.
local Context = require "perigee.stage.context"
local joined = require "tests.lua.joined"
local core = require "perigee.core"
local losses = require "perigee.losses"
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local paths = require "perigee.paths"
local tables = require "perigee.base.tables"
local times = require "perigee.times"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor

local number, near_number = oracle.number, oracle.near_number

describe("paths", function()
  local fixture, settings = oracle.load "paths"

  for _, path in ipairs { "linear", "cosine" } do
    it(path .. ": what is noised, what is wanted, what the student says and its loss", function()
      local student = models.sit { depth = settings.depth, width = settings.width, heads = settings.heads,
        patch = settings.patch, channels = settings.channels, size = { settings.height, settings.columns },
        classes = settings.classes }
      student:materialise { initialise = false }
      weights.load(oracle.path "sit_tiny.weights", student)
      local x_t, target = ops.interpolant(fixture.x0, fixture.noise, fixture.t, { path = path })
      oracle.near("x_t", x_t, fixture[path .. ".x_t"], 1e-6)
      oracle.near("target", target, fixture[path .. ".target"], 1e-6)
      local velocity = student(x_t, fixture.t, fixture.y)
      oracle.near("velocity", velocity, fixture[path .. ".velocity"])
      local loss = losses.flow_matching { path = path }
      local context = Context.new { path = loss.path, dtype = "float32" }
      context.result = { prediction = velocity, velocity = velocity, target = target, x_t = x_t, t = fixture.t }
      local value = loss:compute(context)
      near_number("loss", value:item(), number(fixture[path .. ".loss"]), 1e-5)
    end)

    it(path .. ": log-normal times", function()
      for mu = 0, 1 do
        local expected = fixture[("%s.lognormal.%d"):format(path, mu)]
        local time = times.log_normal { mu = mu }
        oracle.near("float32", time:of(fixture.z, paths.of(path)), expected, 1e-6)
        oracle.near("float64", time:of(fixture.z:to "float64", paths.of(path)), expected, 1e-14)
      end
    end)
  end

  it("times are drawn from their distributions", function()
    local state = tensor.tensor({ 3, 5, 0 }, "int64")
    local count = 20000
    local uniform = times.uniform():draw(count, state, "float64", paths.linear())
    assert.is_true(math.abs(uniform:mean():item() - 0.5) < 0.01)
    for path, inverse in pairs {
      linear = function(t) return ops.log(t / (1 - t)) end,
      cosine = function(t) return ops.log(ops.sin(t * (math.pi / 2)) / ops.cos(t * (math.pi / 2))) end,
    } do
      local z = inverse(times.log_normal({ mu = 1, deviation = 0.5 }):draw(count, state, "float64", paths.of(path)))
      local mean = z:mean():item()
      assert.is_true(math.abs(mean - 1) < 0.02, path)
      assert.is_true(math.abs(((z - mean) * (z - mean)):mean():item() - 0.25) < 0.01, path)
    end
  end)
end)

describe("a batch's pictures", function()
  --- Bytes 0, 51, 255 in three channels of one pixel.
  local function context(more)
    local images = tensor.tensor({ { { { 0, 51, 255 } } } }, "uint8")
    return Context.new(tables.merged({ data = { name = "bytes" }, batch = { images = images } }, more))
  end

  it("are [-1, 1] to the student and [0, 1] to the teacher", function()
    for dtype, bound in pairs { float32 = 1e-6, float64 = 1e-15, bfloat16 = 4e-3 } do
      local theirs = context { dtype = dtype }
      for k, expected in ipairs { { -1, -0.6, 1 }, { 0, 0.2, 1 } } do
        local images = k == 1 and theirs:target_images() or theirs:pixels()
        assert.same({ 1, 3, 1, 1 }, images.shape)
        assert.equal(dtype, images.dtype)
        for c, value in ipairs(expected) do
          local got = images:totable()[1][c][1][1]
          assert.is_true(math.abs(got - value) <= bound, ("%s: %.9g, expected %g"):format(dtype, got, value))
        end
      end
    end
  end)

  it("are what a data set of latents makes of them", function()
    local latents, state = tensor.tensor({ 1 }, "float32"), tensor.tensor({ 1, 2, 0 }, "int64")
    local seen
    local theirs = context { dtype = "float32", state = state, batch = { latents = latents },
      data = { latents = function(_, ...)
        seen = { ... }
        return "scaled"
      end } }
    assert.equal("scaled", theirs:target_images())
    assert.equal(latents, seen[1].latents)
    assert.equal(state, seen[2])
    assert.equal("float32", seen[3])
  end)
end)

describe("attention_alignment", function()
  local fixture, settings = oracle.load "attention_alignment"

  --- [B,N,3,H,d] of q and k [B,H,N,d]; nobody reads the values.
  local function packed(q, k)
    local function part(x)
      local s = x.shape
      return x:permute({ 1, 3, 2, 4 }):reshape { s[1], s[3], 1, s[2], s[4] }
    end
    return ops.concat({ part(q), part(k), part(k) }, 3)
  end

  local function loss_of(case, options)
    local f = function(name) return fixture[case .. "." .. name] end
    local pairs_of_layers, student, teacher = f("q").shape[1], {}, {}
    for l = 1, pairs_of_layers do student[l], teacher[l] = l, l + 3 end
    local settings_of = settings[case]
    local loss = losses.attention_alignment { student = student, teacher = teacher, heads = options and options.heads,
      head_map = options and options.head_map }
    return function(q, k)
      local taps = {}
      for l = 1, pairs_of_layers do
        taps["qkv of block " .. l + 3] = packed(f("teacher_q"):select(1, l), f("teacher_k"):select(1, l))
      end
      return loss:compute {
        student = { grid = settings_of.student_grid, heads = f("q").shape[3] },
        teacher_model = function() return { heads = f("teacher_q").shape[3] } end,
        teacher_grid = function() return settings_of.teacher_grid end,
        teacher_attention = function(_, block) return taps["qkv of block " .. block], settings_of.prefix end,
        tap = function(_, name)
          local l = tonumber(name:match "^qkv of block (%d+)$")
          return packed(q:select(1, l), k:select(1, l))
        end,
      }
    end, f
  end

  for _, case in ipairs { "more_student_heads", "more_teacher_heads", "to_smaller_grid", "to_larger_grid",
                          "to_another_shape", "tokens_33", "tokens_1", "extreme" } do
    it(case, function()
      local loss, f = loss_of(case)
      local gradients, value = core.grad(loss, { f "q", f "k" })
      local bound = case == "extreme" and 1e-4 or 1e-5
      near_number("loss", value:item(), number(f "loss"), bound)
      for k, name in ipairs { "grad_q", "grad_k" } do
        if case == "tokens_1" then assert.equal(0, ops.sum(ops.abs(gradients[k])):item())
        else oracle.near(name, gradients[k], f(name), bound) end
      end
    end)
  end

  it("pairs heads as a map says", function()
    local first, f = loss_of("more_teacher_heads", { heads = 2 })
    local mapped = loss_of("more_teacher_heads", { head_map = { student = { 1, 2 }, teacher = { 1, 2 } } })
    local crossed = loss_of("more_teacher_heads", { head_map = { student = { 1, 2 }, teacher = { 2, 1 } } })
    local q, k = f "q", f "k"
    assert.equal(first(q, k):item(), mapped(q, k):item())
    assert.is_true(math.abs(first(q, k):item() - crossed(q, k):item()) > 1e-4)
  end)
end)

describe("gram_alignment", function()
  --- The same in plain Lua numbers.
  local function reference(student, teacher)
    local function cosine(a, b)
      local dot, square_a, square_b = 0, 0, 0
      for k = 1, #a do dot, square_a, square_b = dot + a[k] * b[k], square_a + a[k] ^ 2, square_b + b[k] ^ 2 end
      return square_a > 0 and square_b > 0 and dot / math.sqrt(square_a * square_b) or 0
    end
    local sum, count = 0, 0
    for image = 1, #student do
      for i = 1, #student[image] do
        for j = 1, #student[image] do
          local difference = cosine(student[image][i], student[image][j]) - cosine(teacher[image][i], teacher[image][j])
          sum, count = sum + difference ^ 2, count + 1
        end
      end
    end
    return sum / count
  end

  local function normal(shape, purpose)
    return ops.random_normal(shape, { state = tensor.tensor({ 5, 1, 0 }, "int64"), purpose = purpose,
      dtype = "float64" })
  end

  local function value_of(hidden, teacher, from, to)
    return losses.gram_alignment { block = 3 }:compute {
      student = { grid = from }, teacher_grid = function() return to end,
      teacher_features = function() return { patches = teacher } end,
      tap = function(_, name)
        assert.equal("block 3", name)
        return hidden
      end,
    }
  end

  it("is the mean squared difference of cosines between tokens, of any two widths", function()
    local hidden, teacher = normal({ 3, 6, 7 }, "hidden"), normal({ 3, 6, 31 }, "teacher")
    local expected = reference(hidden:totable(), teacher:totable())
    near_number("float64", value_of(hidden, teacher, { 2, 3 }, { 2, 3 }):item(), expected, 1e-13)
    local single = value_of(hidden:to "float32", teacher:to "float32", { 2, 3 }, { 2, 3 })
    near_number("float32", single:item(), expected, 1e-5)
    local low = value_of(hidden:to "bfloat16", teacher:to "bfloat16", { 2, 3 }, { 2, 3 })
    assert.equal("float32", low.dtype)
    near_number("bfloat16", low:item(), expected, 1e-2)
  end)

  it("does not see how long tokens are, nor how they are turned", function()
    local teacher, sizes = normal({ 2, 6, 5 }, "teacher"), ops.exp(normal({ 2, 6, 1 }, "sizes"))
    assert.is_true(value_of(teacher * sizes, teacher, { 2, 3 }, { 2, 3 }):item() < 1e-24)
    assert.is_true(value_of(teacher:flip(3) * -1, teacher, { 2, 3 }, { 2, 3 }):item() < 1e-24)
  end)

  it("resamples the student's tokens to the teacher's grid", function()
    local hidden, teacher = normal({ 2, 4, 7 }, "hidden"), normal({ 2, 12, 5 }, "teacher")
    local resampled = ops.resize_tokens(hidden, { from = { 2, 2 }, to = { 3, 4 } })
    near_number("loss", value_of(hidden, teacher, { 2, 2 }, { 3, 4 }):item(),
      reference(resampled:totable(), teacher:totable()), 1e-13)
  end)

  it("has the gradient of finite differences, and a finite one where a token is zero", function()
    local hidden, teacher = normal({ 2, 4, 3 }, "hidden"), normal({ 2, 4, 5 }, "teacher")
    local function loss(h) return value_of(h, teacher, { 2, 2 }, { 2, 2 }) end
    local gradient = core.grad(loss, { hidden })[1]:reshape { -1 }
    for k = 1, 24 do
      local step = ops.fill({ 24 }, { value = 0, dtype = "float64" })
      step:narrow(1, k, 1):fill_(1e-6)
      step = step:reshape { 2, 4, 3 }
      local difference = (loss(hidden + step):item() - loss(hidden - step):item()) / 2e-6
      assert.is_true(math.abs(gradient:narrow(1, k, 1):item() - difference) < 1e-9, "element " .. k)
    end
    for _, dtype in ipairs { "float64", "float32" } do
      local first = ops.fill({ 2, 1, 3 }, { value = 0, dtype = "float64" })
      local zeroed = ops.concat({ first, hidden:narrow(2, 2, 3) }, 2):to(dtype)
      local gradients = core.grad(function(h) return value_of(h, teacher:to(dtype), { 2, 2 }, { 2, 2 }) end, { zeroed })
      local largest = ops.max(ops.abs(gradients[1])):item()
      assert.is_true(largest == largest and largest < 1e30)
    end
  end)
end)

describe("feature_alignment", function()
  local fixture, settings = oracle.load "feature_alignment"

  local function context(hidden, teacher, projector, grids)
    return {
      student = { grid = grids.student_grid }, modules = { features = { projector = projector } },
      left = {}, teacher_grid = function() return grids.teacher_grid end,
      teacher_features = function() return { patches = teacher } end,
      tap = function(_, name)
        assert.equal("block 1", name)
        return hidden
      end,
    }
  end

  for _, case in ipairs { "width_1", "width_31", "width_33", "width_257", "sizes", "zero_teacher", "zero_student" } do
    it(case, function()
      local f = function(name) return fixture[case .. "." .. name] end
      local loss = losses.feature_alignment { block = 1 }
      local grids = { student_grid = { 1, f("student").shape[2] }, teacher_grid = { 1, f("student").shape[2] } }
      local gradients, value = core.grad(function(student)
        return loss:compute(context(student, f "teacher", function(x) return x end, grids))
      end, { f "student" })
      near_number("loss", value:item(), number(f "loss"), 1e-5)
      if case == "width_1" then
        assert.is_true(ops.max(ops.abs(gradients[1])):item() < 1e-6)
      elseif case == "sizes" then -- rows differ by 1e10 in size: each by itself
        local actual = gradients[1]:reshape { -1, gradients[1].shape[3] }
        local expected = f("grad"):reshape { -1, f("grad").shape[3] }
        for row = 1, actual.shape[1] do oracle.near("row " .. row, actual:select(1, row), expected:select(1, row)) end
      else oracle.near("grad", gradients[1], f "grad") end
    end)
  end

  for _, case in ipairs { "projected", "to_smaller_grid", "to_larger_grid" } do
    it(case, function()
      local f = function(name) return fixture[case .. "." .. name] end
      local loss = losses.feature_alignment { block = 1, hidden = 20 }
      local projector = loss:modules({ width = 12 }, { width = 9 }).projector
      local group = joined { projectors = { projector } }
      group:materialise { initialise = false }
      local public, parameters = weights.public_parameters(group, "repa"), {}
      for k, entry in ipairs(public) do
        entry.parameter:copy_(f(entry.name):reshape(entry.parameter.shape))
        parameters[k] = entry.parameter
      end
      local gradients, value = core.grad(function(hidden)
        return loss:compute(context(hidden, f "teacher", projector, settings[case]))
      end, { f "hidden" }, { also = parameters })
      near_number("loss", value:item(), number(f "loss"), 1e-5)
      oracle.near("hidden", gradients[1], f "grad_hidden")
      for k, entry in ipairs(public) do
        oracle.near(entry.name, gradients[k + 1], f("grad." .. entry.name):reshape(gradients[k + 1].shape))
      end
    end)
  end
end)
