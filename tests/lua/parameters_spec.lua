--- What one writes is what trains: expressions of parameters alone, inside models and losses, in every way that a
--- program is made.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local files = require "perigee.io.files"
local gradient_angle = require "perigee.stage.gradient_angle"
local loading = require "perigee.recipe.load"
local module = require "perigee.nn.module"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local Run = require "perigee.train.run"
local scaled = require "tests.lua.scaled"
local tiny = require "tests.lua.tiny"

local nn, ops, tensor = pg.nn, pg.ops, core.tensor

-- ---- expressions of one parameter -------------------------------------------------------------------------------

--- `use(w, x)`: w [4,6] alone in an expression, then beside x [5,4,6].
local expressions = {
  { "1 + w", function(w, x) return x * (1 + w) end },
  { "w + 1", function(w, x) return x * (w + 1) end },
  { "w + 0", function(w, x) return x * (w + 0) end },
  { "w * 2", function(w, x) return x * (w * 2) end },
  { "2 - w", function(w, x) return x * (2 - w) end },
  { "1 / w", function(w, x) return x * (1 / (w * w + 1)) end },
  { "-w", function(w, x) return x * -w end },
  { "w ^ 2", function(w, x) return x * w ^ 2 end },
  { "2 ^ w", function(w, x) return x * 2 ^ w end },
  { "w * w", function(w, x) return x * (w * w) end },
  { "w alone twice", function(w, x) return x * w + w end },
  { "exp", function(w, x) return x * ops.exp(w) end },
  { "sigmoid", function(w, x) return x * w:sigmoid() end },
  { "square", function(w, x) return x * w:square() end },
  { "softmax", function(w, x) return x * w:softmax(1) end },
  { "mean", function(w, x) return x * w:mean() end },
  { "sum over one dimension", function(w, x) return x * w:sum(1) end },
  { "W / |W|", function(w, x) return x * (w / ops.sqrt((w * w):sum(2, { keep = true }))) end },
  { "reshape", function(w, x) return x * w:reshape { 1, 4, 6 } end },
  { "reshape with -1", function(w, x) return x * w:reshape { 1, 1, -1 }:reshape { 4, 6 } end },
  { "unsqueeze", function(w, x) return x * w:unsqueeze(1) end },
  { "narrow", function(w, x) return x * w:narrow(1, 2, 1) end },
  { "narrows that tile", function(w, x) return x * w:narrow(2, 1, 1) + x * w:narrow(2, 2, 1) * 3 end },
  { "select", function(w, x) return x * w:select(1, 3) end },
  { "chunk", function(w, x)
    local halves = w:chunk(2, 2)
    return x * ops.concat({ halves[2], halves[1] }, 2)
  end },
  { "transpose", function(w, x) return x * w:transpose(1, 2):reshape { 4, 6 } end },
  { "transposed in a product", function(w, x) return ops.matmul(x, w:transpose(1, 2)) end },
  { "expand", function(w, x) return x * w:unsqueeze(1):expand { 5, 4, 6 } end },
  { "a view of a view of a view", function(w, x)
    return x * w:transpose(1, 2):narrow(1, 2, 4):select(2, 1):reshape { 4, 1 }
  end },
  { "an expression of a view", function(w, x)
    return x * ops.exp(w:narrow(2, 1, 3):square()):mean(2, { keep = true })
  end },
  { "rows by index", function(w, x)
    return x * ops.embedding(w, pg.tensor({ 3, 0, 0, 1 }, "int64"))
  end },
  { "gather", function(w, x) return x * ops.gather(w, 2, pg.tensor({ { 5 }, { 0 }, { 2 }, { 2 } }, "int64")) end },
  { "where, beside a constant", function(w, x)
    return x * ops.where(ops.less(w, 0), w * 3, pg.zeros({ 4, 6 }, w.dtype))
  end },
  { "a constant's product", function(w, x) return x * (pg.full({ 4, 6 }, 3, w.dtype) * w) end },
  { "layernorm of it", function(w, x) return x * ops.layernorm(w) end },
  { "a linear layer of it", function(w, x) return x * ops.linear(w, w:narrow(1, 1, 1)) end },
  { "cast", function(w, x) return x * w:to "float64" end },
}

local Holder = nn.class "holder"
function Holder:build(use)
  self.w = nn.parameter({ 4, 6 }, nn.initialise.normal(1))
  self.use = use
end
function Holder:forward(x) return self.use(self.w, x) end

local function random(shape, purpose, dtype)
  local state = tensor.tensor({ 11, 0, 0 }, "int64")
  return ops.random_normal(shape, { state = state, purpose = purpose, dtype = dtype or "float64" })
end

--- dL/dw of L = Σ use(w, x)·direction, each element by central differences of eager calls.
local function differences(holder, x, direction)
  local at, step, found = holder.w:clone(), 1e-6, {}
  local values = at:totable()
  local function loss(row, column, change)
    local original = values[row][column]
    values[row][column] = original + change
    holder.w:copy_(tensor.tensor(values, "float64"))
    values[row][column] = original
    return ops.sum(holder(x) * direction):item()
  end
  for row = 1, 4 do
    found[row] = {}
    for column = 1, 6 do
      found[row][column] = (loss(row, column, step) - loss(row, column, -step)) / (2 * step)
    end
  end
  holder.w:copy_(at)
  return tensor.tensor(found, "float64")
end

describe("an expression of a parameter alone", function()
  for _, case in ipairs(expressions) do
    local name, use = unpack(case)
    it("is differentiated in a module: " .. name, function()
      local holder = Holder(use)
      holder:materialise { seed = 5, dtype = "float64" }
      local x = random({ 5, 4, 6 }, "x")
      local y = holder(x)
      local direction = random(y.shape, "direction")
      local function loss(v) return ops.sum(holder(v) * direction) end
      local expected = differences(holder, x, direction)
      for _, fuse in ipairs { true, false } do
        local gradients, value = core.grad(loss, { x }, { also = { holder.w }, fuse = fuse })
        assert.is_true(math.abs(value:item() - ops.sum(y * direction):item()) < 1e-9)
        oracle.near("gradient", gradients[2], expected, 1e-7)
      end
      oracle.near("compiled", core.compile(function(v) return holder(v) end, { x })(x), y, 1e-14)
    end)

    it("is recomputed in the backward pass: " .. name, function()
      local holder = Holder(use)
      holder:materialise { seed = 5, dtype = "float64" }
      local x = random({ 5, 4, 6 }, "x")
      local direction = random(holder(x).shape, "direction")
      local function loss(v)
        return ops.sum(v.program:recompute(holder.forward, holder, v) * direction)
      end
      local gradients = core.grad(loss, { x }, { also = { holder.w } })
      oracle.near("gradient", gradients[2], differences(holder, x, direction), 1e-7)
    end)

    it("is traced and planned without storage: " .. name, function()
      local holder = Holder(use)
      holder:assume_dtype "float64"
      local p = core.program.new "meta"
      local x = p:input("x", { 5, 4, 6 }, "float64")
      local value = p:trace(holder, x)
      assert.same(p, value.program)
      assert.is_table(p.captures[holder.w])
      local loss = ops.sum(value)
      local gradient = core.gradient(p, { loss }, { ops.full_like(loss, 1) }, { p.captures[holder.w] })[1]
      assert.same({ 4, 6 }, gradient.shape)
      core.plan.build(p, { { name = "gradient", value = gradient } })
    end)
  end

  it("trains: each of a student that has them all", function()
    for _, precision in ipairs { "float32", "bf16" } do
      for _, micro in ipairs { 1, 2 } do
        local student = scaled.student(function(self)
          self.w = {}
          for k = 1, #expressions do self.w[k] = nn.parameter({ 4, 6 }, nn.initialise.normal(1)) end
        end, function(self, x)
          local constant, sum = pg.full({ 5, 4, 6 }, 0.5, x.dtype), 0
          for k, case in ipairs(expressions) do
            sum = case[2](self.w[k], constant):sin():sum():to(x.dtype) + sum
          end
          return x + sum * 0.01
        end)
        local recipe = scaled.recipe(student,
          { precision = precision, micro = micro, optim = pg.optim.adamw { lr = 1e-2 } })
        local run = Run.new(recipe)
        run:build_stage()
        local group, start = run.groups[1], run.groups[1].parameters:clone()
        for _ = 1, 3 do run:advance() end
        for _, entry in ipairs(group.layout) do
          local number = tonumber(entry.name:match "^w%.(%d+)$")
          local moved = oracle.distance(module.slice(group.parameters, entry.offset, entry.shape),
            module.slice(start, entry.offset, entry.shape))
          assert.is_true(moved > 1e-5, number and expressions[number][1] or entry.name)
        end
        run:free()
      end
    end
  end)

  it("costs nothing where it is a view", function()
    local holder = Holder(function(w, x) return x * w:transpose(1, 2):narrow(1, 1, 1):reshape { 4, 1 } end)
    local p = core.program.new "views"
    local value = p:trace(holder, p:input("x", { 5, 4, 6 }))
    local calls = core.plan.build(p, { { name = "y", value = value } }).calls
    assert.equal(1, #calls)
    assert.equal("mul", calls[1].node.definition.name)
  end)

  it("runs at once outside of a trace, after one, and after one that failed", function()
    local holder = Holder(function(w, x) return x * (1 + w) end)
    holder:materialise { seed = 5 }
    assert.is_true(tensor.is_tensor(1 + holder.w))
    pg.compile(function(x) return holder(x) end, { pg.zeros { 5, 4, 6 } })
    assert.is_true(tensor.is_tensor(1 + holder.w))
    expect.fails(function() pg.compile(function() error "stop here" end, { pg.zeros { 1 } }) end, "stop here")
    assert.is_true(tensor.is_tensor(1 + holder.w))
  end)

  it("has its gradient where a function reads its input itself, instead of the value it is given", function()
    local x = pg.tensor { 1, 2, 3 }
    assert.same({ 2, 4, 6 }, pg.grad(function() return (x * x):sum() end, { x })[1]:totable())
    assert.same({ 3, 6, 9 }, pg.grad(function(v) return (x * v):sum() + (v * v):sum() / 2 end, { x })[1]:totable())
    local y = pg.tensor { 1, 1, 1 }
    local gradients = pg.grad(function(v) return (v * 2):sum() + ops.exp(y * 0):sum() + y:square():sum() end, { x },
      { also = { y } })
    assert.same({ 2, 2, 2 }, gradients[2]:totable())
  end)

  it("is of the program that is traced innermost", function()
    local holder = Holder(function(w, x) return x * (1 + w) end)
    local outer, inner = core.program.new "outer", core.program.new "inner"
    outer:trace(function()
      assert.equal(outer, (holder.w + 1).program)
      inner:trace(function() assert.equal(inner, (holder.w + 1).program) end)
      assert.equal(outer, (holder.w + 1).program)
    end)
  end)
end)

-- ---- ten steps of PyTorch's -------------------------------------------------------------------------------------

local fixture, settings = oracle.load "parameters"
local RECIPE = door.home .. "/tests/lua/recipes/parameters.lua"

local function recipe_of(options) return loading.load(RECIPE, { values = options or {} }).value end

--- A run of the recipe on the fixture's weights, pictures, times and noise.
local function fixture_run(options)
  local recipe = recipe_of(options)
  recipe.data.loader = function()
    local step = 0
    return {
      next = function()
        step = step + 1
        local stat = recipe.dtype == "float64" and "float64" or "float32"
        return {
          images = fixture.images:to "uint8", labels = fixture.y, time = fixture[("step%d.t"):format(step)]:to(stat),
          noise = fixture[("step%d.noise"):format(step)]:to(recipe.dtype),
        }
      end,
      want = function() end, seek = function() end, close = function() end,
    }
  end
  local run = Run.new(recipe, { trace = { fixed_time = true, fixed_noise = true, drop_labels = false } })
  local group = run.groups[1]
  for _, entry in ipairs(group.layout) do
    module.slice(group.parameters, entry.offset, entry.shape):copy_(fixture["start." .. entry.name])
  end
  group.average:copy_(group.parameters)
  group:refresh()
  run:build_stage()
  return run, group
end

--- The numbers of a flat buffer that belong to each parameter, against the fixture's; how many there are.
local function near_all(group, flat, prefix, bound)
  local count = 0
  for _, entry in ipairs(group.layout) do
    if not entry.frozen or prefix ~= "grad" then
      count = count + 1
      local name = prefix .. "." .. entry.name
      oracle.near(name, module.slice(flat, entry.offset, entry.shape), assert(fixture[name], name), bound)
    end
  end
  return count
end

local function ten_steps(options, bound)
  local run, group = fixture_run(options)
  for step = 1, settings.steps do
    run:advance()
    for _, loss in ipairs { "denoise", "gauge" } do
      local expected = fixture[("step%d.%s"):format(step, loss)]:item()
      assert.is_true(math.abs(run.losses[loss] - expected) <= bound * expected, ("step %d: %s"):format(step, loss))
    end
    local norm = fixture[("step%d.gradient_norm"):format(step)]:item()
    assert.is_true(math.abs(run.gradient_norm - norm) <= bound * norm, ("step %d: the norm"):format(step))
    if step == 1 then assert.equal(13, near_all(group, group.gradients, "grad", bound)) end
  end
  assert.equal(14, near_all(group, group.parameters, "after", bound))
  assert.equal(14, near_all(group, group.average, "ema", bound))
  for _, entry in ipairs(group.layout) do
    local name, now = entry.name, module.slice(group.parameters, entry.offset, entry.shape)
    local moved = oracle.distance(now, fixture["start." .. name])
    if entry.frozen then assert.equal(0, moved, name) else assert.is_true(moved > 1e-3, name) end
  end
  run:free()
end

describe("a model that computes with its parameters", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)

  for _, recompute in ipairs { false, true } do
    for _, micro in ipairs { 4, 2, 1 } do
      local how = ("in pieces of %d%s"):format(micro, recompute and ", blocks recomputed" or "")
      it("makes PyTorch's ten steps " .. how, function()
        ten_steps({ micro = micro, recompute = recompute }, 1e-5)
        ten_steps({ micro = micro, recompute = recompute, precision = "float64" }, 1e-11)
      end)
    end
  end

  it("moves every parameter in bf16 as far as in float32", function()
    local run, group = fixture_run { precision = "bf16", micro = 2 }
    for step = 1, settings.steps do
      run:advance()
      local expected = fixture[("step%d.denoise"):format(step)]:item()
      assert.is_true(math.abs(run.losses.denoise - expected) <= 0.05 * expected, ("step %d"):format(step))
    end
    for _, entry in ipairs(group.layout) do
      local start, after = fixture["start." .. entry.name], fixture["after." .. entry.name]
      local now = module.slice(group.parameters, entry.offset, entry.shape)
      if entry.frozen then assert.equal(0, oracle.distance(now, start), entry.name)
      else
        local expected = oracle.distance(after, start)
        local moved = oracle.distance(now, start)
        assert.is_true(moved > 0.5 * expected and moved < 2 * expected, entry.name)
      end
    end
    run:free()
  end)

  it("is sampled with its averages", function()
    local run, group = fixture_run()
    for _ = 1, 3 do run:advance() end
    local student, x = run.recipe.student, random({ 4, 3, 4, 4 }, "x", "float32")
    local t, y = pg.tensor { 0.1, 0.4, 0.6, 1 }, pg.tensor({ 0, 1, 2, 3 }, "int64")
    local labels = { { name = "labels", shape = {}, dtype = "int64" } }
    local with = require("perigee.sampling.field").compile(student, labels, 4, { captures = (group:averages()) })
    local sampled = with:run { x = x, t = t, ["given labels"] = y }.prediction:clone()
    with:free()
    assert.is_true(oracle.distance(student(x, t, y), sampled) > 1e-3)
    group:show(group.average)
    oracle.near("velocity", sampled, student(x, t, y), 1e-6)
    run:free()
  end)

  it("trains and samples by the commands, resumed too", function()
    local in_runs = "--runs " .. tiny.quote(in_folder())
    local function perigee(...)
      local status, output = tiny.perigee(table.concat({ ... }, " "))
      assert.equal(0, status, output)
    end
    for _, recompute in ipairs { "false", "true" } do
      local train = ("train %s --set recompute=%s --quiet"):format(tiny.quote(RECIPE), recompute)
      perigee(train, in_runs, "--name whole" .. recompute)
      perigee(train, in_runs, "--name parts" .. recompute, "--steps 4")
      perigee(train, in_runs, "--name parts" .. recompute, "--resume")
      assert.equal(tiny.checkpoint(in_folder("whole" .. recompute), 10),
        tiny.checkpoint(in_folder("parts" .. recompute), 10))
    end
    perigee("sample", tiny.quote(in_folder "wholefalse"), "--count 3 --out", tiny.quote(in_folder "samples.npz"))
    perigee("show", tiny.quote(RECIPE))
    perigee("plan", tiny.quote(RECIPE), "--device h100")
  end)

  it("trains on cuda, over tests/cuda_on_cpu, as on the processor", function()
    local library = (os.getenv "PERIGEE_BUILD" or door.home .. "/build") .. "/runtime/libperigee_cuda_on_cpu.so"
    if not files.exists(library) then
      pending "the plugin of tests/cuda_on_cpu is not built"
      return
    end
    local environment = ("PERIGEE_CUDA_LIBRARY=%s PERIGEE_CACHE=%s"):format(tiny.quote(library),
      tiny.quote(in_folder "cache"))
    local function trained(device, precision, micro)
      local name = ("%s-%s-%d"):format(device, precision, micro)
      local words = "train %s --device %s --set precision=%s --set micro=%d --quiet --runs %s --name %s"
      local status, output = tiny.perigee(words:format(tiny.quote(RECIPE), device, precision, micro,
        tiny.quote(in_folder()), name), environment)
      assert.equal(0, status, output)
      return pg.load_safetensors(in_folder(name) .. "/checkpoints/step-0000010.safetensors")
    end
    for precision, bound in pairs { float32 = 1e-4, bf16 = 2e-2 } do
      for _, micro in ipairs { 4, 2 } do
        local here, there = trained("cpu", precision, micro), trained("cuda", precision, micro)
        for _, entry in ipairs(recipe_of().student:layout()) do
          local name = "student." .. entry.name
          oracle.near(("%s, %s in pieces of %d"):format(name, precision, micro), there[name], here[name], bound)
        end
      end
    end
  end)

  it("is planned and shown without storage, its views as views", function()
    local stages = require("perigee.cost.price").recipe(recipe_of())
    assert.equal(recipe_of().student:parameter_count(), stages[1].parameters.student)
    local text = require("perigee.core.text").plan(stages[1].plan)
    for _, call in ipairs { "exp%(", "softmax%(", "sqrt%(", "narrow%(", "sigmoid" } do assert.matches(call, text) end
    for _, c in ipairs(stages[1].plan.calls) do assert.is_nil(c.node.definition.view) end
  end)
end)

-- ---- the gradient angle -----------------------------------------------------------------------------------------

describe("the gradient angle of a block", function()
  --- Measured on tiny.lua after a step, blocks multiplied by `gain(log_gain, x)`.
  local function angle(gain)
    local recipe = tiny.recipe { precision = "float64" }
    for _, block in ipairs(recipe.student.blocks) do
      block.log_gain = nn.parameter({ 1 }, nn.initialise.constant(0.1))
      local forward = getmetatable(block).forward
      function block:forward(x, c, number) return forward(self, x, c, number) * gain(self.log_gain, x) end
    end
    local run = Run.new(recipe)
    run:build_stage()
    run:advance()
    local value = gradient_angle.measure(run, { 2 }, { time = { 0.3 }, images = 8, ema = true })[1]
    run:free()
    return value.mean
  end

  it("is the same, whether its parameters' expression reads the activations or not", function()
    local alone = angle(function(w) return ops.exp(w) end)
    local beside = angle(function(w, x) return ops.exp(w + x:mean() * 0) end)
    assert.is_true(math.abs(alone) > 1e-3)
    assert.is_true(math.abs(alone - beside) < 1e-9, ("%.12g and %.12g"):format(alone, beside))
  end)

  it("is that of the parameters that train", function()
    local function price(...)
      local recipe = tiny.recipe()
      recipe.student.blocks[2]:freeze(...)
      return gradient_angle.price({ recipe = recipe, stage = recipe.stages[1], micro = 8, trace = {}, device = "cpu" },
        { blocks = { 2 } }, 0)
    end
    assert.is_true(price("mlp").flops < price("mlp.output").flops)
    expect.fails(price, "gradient_angle: block 2 has no parameter that trains")
  end)
end)
