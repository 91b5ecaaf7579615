--- What a run trains: every parameter that some loss reaches, each once, and none that is frozen; what it says of
--- others.
local door = require "perigee.core.ffi"
local expect = require "tests.lua.expect"
local module = require "perigee.nn.module"
local oracle = require "tests.lua.oracle"
local pg = require "perigee"
local Run = require "perigee.train.run"
local scaled = require "tests.lua.scaled"

local Scaled, recipe_with, custom, stage = scaled.student, scaled.recipe, scaled.loss, scaled.stage
local denoise, refused = scaled.denoise, scaled.refused
local nn, ops = pg.nn, pg.ops

local function extra(self) self.extra = nn.parameter({ 5 }, nn.initialise.ones) end

describe("a parameter that no loss reaches", function()
  it("is named before the first step", function()
    refused(recipe_with(Scaled(extra)), "student.extra [5] would never train: no loss of any stage depends on it. ",
      'Use it in the model, remove it, or freeze it: module:freeze "extra"')
    refused(recipe_with(Scaled(function(self)
      self.layers = {}
      for k = 1, 5 do self.layers[k] = nn.linear(2, 2) end
    end)), "student.layers.1.bias [2], student.layers.1.weight [2,2], ", " and 2 more would never train")
  end)

  it("is one whose gradient is stopped, too", function()
    refused(recipe_with(Scaled(extra, function(self, x) return x + self.extra:mean():stop_gradient() end)),
      "student.extra [5] would never train")
  end)

  it("belongs to a loss's module, too", function()
    local map = custom("map", function(_, context) return context.modules.map.linear.weight:mean() end,
      { modules = function() return { linear = nn.linear(2, 2) } end })
    refused(recipe_with(Scaled(), { stages = { stage("train", denoise, map) } }),
      "losses.map.linear.bias [2] would never train")
  end)

  it("may be reached by a later stage alone", function()
    local late = custom("late", function(_, context) return context.student.extra:square():sum() end)
    local run = pg.train.train(recipe_with(Scaled(extra),
      { optim = pg.optim.adamw { lr = 1e-2 }, stages = { stage("first", denoise), {
        name = "second", losses = { { 1, denoise }, { 1, late } }, finish = pg.stop.at_step(4) } } }), { quiet = true })
    for _, x in ipairs(run.recipe.student.extra:totable()) do assert.is_true(x < 0.999) end
    run:free()
  end)

  it("is taken where it is frozen", function()
    local student = Scaled(extra)
    assert.equal(student, student:freeze "extra")
    local run = pg.train.train(recipe_with(student), { quiet = true })
    assert.same({ 1, 1, 1, 1, 1 }, student.extra:totable())
    run:free()
  end)
end)

describe("a recipe is refused where", function()
  it("a module is kept out of the student's fields: at the line that uses it", function()
    local hidden = nn.linear(4, 4)
    local recipe = recipe_with(Scaled(nil, function(_, x)
      local y = hidden(x) -- no tail call, which would leave no trace
      return y
    end))
    refused(recipe, "frozen_spec.lua:", "this parameter [4,4] belongs to no module that is trained: keep the module "
      .. "that has it in a field of the student")
    hidden:materialise()
    refused(recipe, "frozen_spec.lua:", "or say that it stays as it is, with module:freeze()")
    hidden:freeze()
    pg.train.train(recipe, { quiet = true }):free()
  end)

  it("a loss reads the teacher and doesn't say so", function()
    local loss = custom("reads", function(_, context) return context:teacher_features().patches:mean() end)
    local teacher = pg.models.vit { depth = 1, width = 8, heads = 1, patch = 2, image = 4 }
    local student = Scaled()
    student.grid = { 2, 2 }
    refused(recipe_with(student, { teacher = teacher, stages = { stage("train", denoise, loss) } }),
      "stage 'train' reads teacher.", "give the loss `needs_teacher = true`")
  end)

  it("a loss would train the student's parameters a second time", function()
    local loss = custom("again", function(_, context) return context.modules.again.layer.weight:mean() end,
      { modules = function(_, student) return { layer = student.layer } end })
    local student = Scaled(function(self) self.layer = nn.linear(4, 4) end, function(self, x) return self.layer(x) end)
    refused(recipe_with(student, { stages = { stage("train", denoise, loss) } }),
      "student.layer.bias and losses.again.layer.bias are one parameter, which would be trained twice")
  end)

  it("a stage uses the module of a loss that it doesn't have", function()
    local one = custom("one", function(_, context) return context.modules.one.layer.weight:mean() end,
      { modules = function() return { layer = nn.linear(2, 2, { bias = false }) } end })
    local other = custom("other", function(_, context) return context.modules.one.layer.weight:square():mean() end)
    refused(recipe_with(Scaled(), { stages = { stage("a", denoise, one), stage("b", denoise, other) } }),
      "stage 'b' reads losses.one.layer.weight, and the loss 'one', which trains that, is not in the stage")
  end)

  it("a stage trains nothing", function()
    refused(recipe_with(Scaled():freeze()), "stage 'train' trains nothing")
  end)
end)

describe("frozen parameters", function()
  local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(setup, teardown)

  local function student(frozen)
    local made = Scaled(function(self)
      self.inner = { nn.linear(4, 4), nn.linear(4, 4) }
      self.shift = nn.parameter({ 1 }, nn.initialise.normal(1))
    end, function(self, x) return self.inner[2](self.inner[1](x)) + self.shift end)
    return made:freeze(unpack(frozen))
  end

  it("never move, decay or not, in any precision and in pieces; the others do", function()
    for _, precision in ipairs { "float32", "bf16", "float64" } do
      for _, micro in ipairs { 1, 2 } do
        local model = student { "inner.1", "shift" }
        local recipe = recipe_with(model, { precision = precision, micro = micro })
        local run = Run.new(recipe)
        local group, start = run.groups[1], {}
        for _, entry in ipairs(group.layout) do
          start[entry.name] = module.slice(group.parameters, entry.offset, entry.shape):clone()
        end
        run:build_stage()
        for _ = 1, 3 do run:advance() end
        assert.equal(16 + 16 + 16, group.gradients:numel())
        assert.equal(16 + 16 + 16, group.moments.first_moment:numel())
        for _, entry in ipairs(group.layout) do
          local frozen = entry.name:match "^inner%.1" or entry.name == "shift"
          assert.equal(frozen ~= nil and frozen ~= false, entry.frozen, entry.name)
          for _, flat in ipairs { group.parameters, group.average } do
            local moved = oracle.distance(module.slice(flat, entry.offset, entry.shape), start[entry.name])
            if frozen then assert.equal(0, moved, entry.name) else assert.is_true(moved > 0, entry.name) end
          end
        end
        run:free()
      end
    end
  end)

  it("have the gradients of the others as if they trained too", function()
    local function gradients(model)
      local run = Run.new(recipe_with(model, { precision = "float64" }))
      run:build_stage()
      run:advance()
      local group, all = run.groups[1], {}
      for _, entry in ipairs(group.layout) do
        if not entry.frozen then all[entry.name] = module.slice(group.gradients, entry.offset, entry.shape):clone() end
      end
      run:free()
      return all
    end
    local all, some = gradients(student { "shift" }), gradients(student { "inner.1", "shift" })
    assert.is_nil(some["inner.1.weight"])
    for _, name in ipairs { "scale", "inner.2.weight", "inner.2.bias" } do
      oracle.near(name, some[name], all[name], 1e-12)
    end
  end)

  it("are in checkpoints without moments, in config.json by name, and a run resumes with them", function()
    local path = in_folder "run"
    local stages = { { name = "train", losses = { { 1, denoise } }, finish = pg.stop.at_step(6) } }
    local function train(steps)
      pg.train.train(recipe_with(student { "inner.1" }, { stages = stages }),
        { quiet = true, folder = path, steps = steps, resume = true }):free()
    end
    train(3)
    train(6)
    local resumed = pg.load_safetensors(path .. "/checkpoints/step-0000006.safetensors")
    pg.train.train(recipe_with(student { "inner.1" }, { stages = stages }),
      { quiet = true, folder = in_folder "whole" }):free()
    local whole = pg.load_safetensors(in_folder "whole" .. "/checkpoints/step-0000006.safetensors")
    for name, t in pairs(whole) do assert.same(t:totable(), resumed[name]:totable(), name) end
    assert.is_table(whole["student.inner.1.weight"])
    assert.is_table(whole["ema.student.inner.1.weight"])
    assert.is_nil(rawget(whole, "optimizer.m.student.inner.1.weight"))
    assert.is_table(whole["optimizer.m.student.inner.2.weight"])
    local config = require("perigee.io.json").read(path .. "/config.json")
    assert.same({ "student.inner.1.bias", "student.inner.1.weight" }, config.frozen)
  end)

  it("may be more in a continued run, and not fewer", function()
    local path = in_folder "more"
    local stages = { { name = "train", losses = { { 1, denoise } }, finish = pg.stop.at_step(6) } }
    local function train(steps, ...)
      local model = student { "shift", ... }
      pg.train.train(recipe_with(model, { stages = stages }),
        { quiet = true, folder = path, steps = steps, resume = true }):free()
      return pg.load_safetensors(("%s/checkpoints/step-%07d.safetensors"):format(path, steps))
    end
    local before, after = train(2), train(4, "inner.1")
    assert.equal(0, oracle.distance(after["student.inner.1.weight"], before["student.inner.1.weight"]))
    assert.is_true(oracle.distance(after["student.inner.2.weight"], before["student.inner.2.weight"]) > 0)
    expect.fails(function() train(6) end, "step-0000004.safetensors has no moments of 'student.inner.1.bias', which "
      .. "was frozen in that run: freeze it again, or begin a new run")
    train(6, "inner.1")
  end)

  it("may be all of a group's: a student that only a loss's module looks at", function()
    local probe = custom("probe", function(_, context)
      return (context.modules.probe.head(context:forward().velocity) - 1):square():mean()
    end, { modules = function() return { head = nn.linear(4, 4) } end })
    for _, precision in ipairs { "float32", "bf16" } do
      local model = student {}
      local run = pg.train.train(recipe_with(model,
        { precision = precision, micro = 1, stages = { { name = "train", losses = { { 1, probe }, { 1, denoise } },
          finish = pg.stop.at_step(3) } } }), { quiet = true })
      assert.equal(0, run.groups[1].gradients:numel())
      assert.is_true(ops.sum(run.groups[2].moments.second_moment):item() > 0)
      run:free()
    end
  end)

  it("are less to price", function()
    local price = require "perigee.cost.price"
    local function priced(...) return price.recipe(recipe_with(student { ... }))[1] end
    local all, some = priced "shift", priced("inner.1", "shift")
    assert.equal(2 * 4 * 32, all.memory.optimizer - some.memory.optimizer)
    assert.equal(4 * 32, all.memory.gradients - some.memory.gradients)
    assert.equal(all.memory.parameters, some.memory.parameters)
    assert.equal(21, some.parameters.frozen)
    assert.is_true(some.flops < all.flops)
  end)

  it("are named by their fields", function()
    local model = student {}
    model:unfreeze()
    expect.fails(function() model:freeze "iner.1" end, "frozen_spec.lua:",
      "a scaled has no parameter under the name 'iner.1'")
    model:freeze():unfreeze("inner", "scale")
    local names = {}
    for _, entry in ipairs(model:layout()) do
      if entry.frozen then names[#names + 1] = entry.name end
    end
    assert.same({ "shift" }, names)
  end)
end)
