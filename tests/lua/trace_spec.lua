--- What a trace has no answer to, told at the user's line: numbers of symbolic values, random numbers drawn once.
local expect = require "tests.lua.expect"
local pg = require "perigee"
local Run = require "perigee.train.run"
local scaled = require "tests.lua.scaled"

local Scaled, recipe_with, custom, stage = scaled.student, scaled.recipe, scaled.loss, scaled.stage
local refused = scaled.refused
local ops = pg.ops

describe("in a trace", function()
  --- The message of training a student that does `body(self, x)` in its forward pass.
  local function fails_in_model(body, ...)
    refused(recipe_with(Scaled(nil, function(self, x)
      body(self, x)
      return x
    end)), "trace_spec.lua:", ...)
  end

  it("random numbers without the step's state are refused where they are asked for", function()
    for what, draw in pairs {
      ["random_normal"] = function() return pg.randn { 4 } end,
      ["random_uniform"] = function() return pg.rand { 4 } end,
      ["math.random"] = function() return math.random() end,
      ["random_permutation"] = function()
        return ops.random_permutation(4, { state = pg.tensor({ 0, 0, 0 }, "int64"), purpose = "order" })
      end,
    } do
      fails_in_model(draw, what .. ": a model or a loss is traced once, so these numbers would be the same in every "
        .. "step; use ops.random_normal(shape, { state = context.state")
      local loss = custom("noisy", function(_, context) return context.student.scale:mean() * draw() end)
      refused(recipe_with(Scaled(), { stages = { stage("train", loss) } }), "trace_spec.lua:", what)
      expect.fails(function() pg.grad(function(x) return (x * draw()):sum() end, { pg.ones { 4 } }) end,
        "trace_spec.lua:", what)
      assert.is_truthy(draw()) -- outside it draws
    end
  end)

  it("random numbers of the step's state are other ones in every step", function()
    local seen, loss = {}, custom("noisy", function(_, context)
      local noise = ops.random_normal({ 4 }, { state = context.state, purpose = "mine" })
      return context.student.scale:square():mean() + noise:mean()
    end)
    local run = Run.new(recipe_with(Scaled(), { stages = { stage("train", loss) }, optim = pg.optim.adamw { lr = 0 } }))
    run:build_stage()
    for _ = 1, 3 do
      run:advance()
      seen[run.losses.noisy] = true
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert.equal(3, count)
    run:free()
  end)

  it("a parameter has no numbers to ask for, to copy or to write", function()
    for _, body in ipairs {
      function(self) return self.scale:mean():item() end,
      function(self) return self.scale:totable() end,
      function(self) return self.scale:item() end,
      function(self) return self.scale:clone() end,
      function(self) return pg.zeros({ 3, 1, 1 }):copy_(self.scale) end,
    } do fails_in_model(body, "symbolic") end
    fails_in_model(function(self) return self.scale:fill_(1) end, "a parameter or buffer does not change while a model")
    fails_in_model(function(self) return self.scale:mean() < 3 end, "attempt to compare", "use ops.where, ops.less")
    fails_in_model(function(self) return self.scale < 3 end, "attempt to compare", "use ops.where, ops.less")
    fails_in_model(function(_, x) return x:item() end, "asking for the number in a symbolic value")
  end)

  it("a parameter prints its shape", function()
    local texts = {}
    local run = pg.train.train(recipe_with(Scaled(nil, function(self, x)
      texts[#texts + 1] = tostring(self.scale) .. " / " .. tostring(1 + self.scale)
      return x
    end)), { quiet = true })
    run:free()
    assert.matches("^float32 %[3,1,1%] on meta / symbolic float32 %[3,1,1%]", texts[1])
    assert.matches("^float32 %[3,1,1%] on cpu / symbolic float32 %[3,1,1%]", texts[#texts])
  end)

  it("constants stay constants", function()
    local model = Scaled(nil, function(_, x) return x + pg.arange(4) * 0.5 + pg.full({ 4, 1 }, 2):mean():item() end)
    local run = pg.train.train(recipe_with(model), { quiet = true })
    for _, node in ipairs(run.plan.nodes) do assert.are_not.equal("arange", node.definition.name) end
    run:free()
  end)

  it("the forward pass is recorded, also where it is asked for after the losses", function()
    local loss = custom("own", function(_, context) return context.student.scale:square():mean() end)
    local recipe = recipe_with(Scaled(nil, function(self, x) return x + (1 + self.scale) end),
      { stages = { stage("train", loss), stage("later", scaled.denoise) } })
    local context = require("perigee.stage.program").trace(recipe, recipe.stages[1], { batch = 2 }).context
    assert.same({ 2, 3, 4, 4 }, context:forward().velocity.shape)
  end)

  it("constants may be kept by a model for the next trace", function()
    local made = 0
    local function model()
      return Scaled(nil, function(self, x)
        if not self.ramp then
          made = made + 1
          self.ramp = pg.arange(4) * 2
        end
        return x + self.ramp
      end)
    end
    local stages = { stage("a", scaled.denoise), { name = "b", losses = { { 2, scaled.denoise } },
      finish = pg.stop.at_step(5) } }
    pg.train.train(recipe_with(model(), { stages = stages }), { quiet = true }):free()
    require("perigee.cost.price").recipe(recipe_with(model(), { stages = stages }))
    assert.equal(2, made)
  end)

  it("values kept from an earlier trace are told from this one's", function()
    fails_in_model(function(self, x)
      self.kept_value = self.kept_value or x
      return x + self.kept_value
    end, "two different programs")
  end)
end)
