--- HASTE's loss on a tiny student and teacher against PyTorch: losses and every gradient, tensor by tensor
--- (tests/oracle/README.md, haste_step).
local joined = require "tests.lua.joined"
local Context = require "perigee.stage.context"
local core = require "perigee.core"
local losses = require "perigee.losses"
local models = require "perigee.models"
local oracle = require "tests.lua.oracle"
local program = require "perigee.core.program"
local weights = require "perigee.io.weights"

local ops, tensor = core.ops, core.tensor

local fixture, settings = oracle.load "haste_step"
local feature_loss = losses.feature_alignment { block = settings.feature_block, hidden = 40 }
local attention_loss = losses.attention_alignment {
  student = settings.student_blocks, teacher = settings.teacher_blocks, heads = 3,
}

local function setting(recompute)
  local s, t = settings.student, settings.teacher
  local student = models.sit { depth = s.depth, width = s.width, heads = s.heads, patch = s.patch,
    channels = s.channels, size = { s.height, s.columns }, classes = s.classes, recompute = recompute }
  local teacher = models.vit { depth = t.depth, width = t.width, heads = t.heads, patch = t.patch, image = t.image,
    stored = t.stored_grid, layer_scale = t.layerscale, mean = t.statistics[1], std = t.statistics[2],
    weights = oracle.path "haste_teacher.weights" }
  teacher:load { purpose = "teacher" }
  local modules = feature_loss:modules(student, teacher)
  local trained = joined { student = student, projectors = { modules.projector } }
  trained:materialise { initialise = false }
  local values, projector = oracle.load "sit_tiny.weights", oracle.load "haste_projector.weights"
  for name, value in pairs(projector) do values[name] = value end
  for _, entry in ipairs(weights.public_parameters(trained, "repa", "student.")) do
    entry.parameter:copy_(values[entry.name]:reshape(entry.parameter.shape))
  end
  return student, teacher, modules.projector, trained
end

--- Runs one step; returns losses, and gradients by public name.
local function step(recompute)
  local student, teacher, projector, trained = setting(recompute)
  local p = program.new "haste"
  local inputs = { x0 = fixture.x0, images = fixture.images, y = fixture.y, t = fixture["step1.t"],
    noise = fixture["step1.noise"] }
  local v = {}
  for name, t in pairs(inputs) do v[name] = p:input(name, t.shape, t.dtype) end
  local context = Context.new {
    program = p, student = student, teachers = { { name = "teacher", model = teacher } },
    modules = { features = { projector = projector } }, batch = {},
    labels = v.y, path = "linear", t = v.t, noise = v.noise, dtype = "float32", drop_labels = false,
  }
  context.x0, context.pixel_images = v.x0, v.images
  local forward = context:forward()
  local parts = {
    denoise = ops.mse(forward.velocity, forward.target),
    features = feature_loss:compute(context),
    attention = attention_loss:compute(context),
  }
  parts.total = parts.denoise + parts.features * 0.5 + parts.attention * 0.5
  local outputs, wrt = {}, {}
  for name, value in pairs(parts) do outputs[#outputs + 1] = { name = name, value = value } end
  local public = weights.public_parameters(trained, "repa", "student.")
  for k, entry in ipairs(public) do wrt[k] = p:capture(entry.parameter) end
  local gradients = core.gradient(p, { parts.total }, { tensor.tensor(1, {}, "float32") }, wrt)
  for k, entry in ipairs(public) do outputs[#outputs + 1] = { name = "grad." .. entry.name, value = gradients[k] } end
  local exe = core.executable.compile(p, outputs)
  local out = exe:run(inputs)
  for _, entry in ipairs(public) do out["grad." .. entry.name] = out["grad." .. entry.name]:reshape(entry.shape) end
  return out, public
end

describe("haste_step", function()
  for _, recompute in ipairs { false, true } do
    it("has PyTorch's losses and gradients" .. (recompute and ", blocks recomputed" or ""), function()
      local out, public = step(recompute)
      for _, name in ipairs { "denoise", "features", "attention", "total" } do
        oracle.near(name, out[name]:reshape { 1 }, fixture["step1." .. name])
      end
      local count = 0
      for name in pairs(fixture) do
        if name:match "^grad%." then count = count + 1 end
      end
      assert.equal(count, #public)
      for _, entry in ipairs(public) do
        oracle.near(entry.name, out["grad." .. entry.name], fixture["grad." .. entry.name])
      end
    end)
  end
end)
