--- Shared by a step's losses: the batch, the noised images, one forward pass of the student with its taps, one of each
--- teacher or, where that is cached, inputs in its place. Each part is made when first asked for, so a stage without a
--- teacher loss has no teacher in its program.
local conditions = require "perigee.stage.conditions"
local contract = require "perigee.stage.student"
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local paths = require "perigee.paths"
local tables = require "perigee.base.tables"
local teachers = require "perigee.stage.teachers"

---@class perigee.Context
---@field program perigee.Program  that all of it is recorded into
---@field student perigee.Module
---@field teacher? perigee.Vit     the only one
---@field teachers perigee.RecipeTeacher[]
---@field modules table<string, table<string, perigee.Module>>  by a loss's name and its own
---@field data perigee.Dataset
---@field batch table<string, perigee.Value>
---@field batch_size integer
---@field labels? perigee.Value  int64 [B], where the data have them
---@field state perigee.Value    int64 [3]: what random ops draw by
---@field dtype perigee.Dtype
---@field kept? perigee.TeacherInputs  what stands for the teachers' forward passes
---@field aligning boolean       the loss that is being recorded is one of the alignment's
---@field averages fun(parameter: perigee.Tensor): perigee.Tensor  the moving average of one of the student's parameters
---@field left table<string, perigee.Value>  what losses leave for signals, by their names
---@field forks table<string, { trunk: perigee.Value|false, branch: perigee.Value|false }>  by tap: its value as the
---  student goes on with it, and as the alignment's losses read it, once one does
local Context = {}
Context.__index = Context

--- `fields`: program, student, teachers, modules (by loss name), batch (values by name: images uint8 [B,H,W,C]
--- or latents, labels), state (int64 [3]), path, time, prediction, dtype; optional t, noise to fix what is otherwise
--- drawn; kept; forked: names of taps.
function Context.new(fields)
  fields.path = fields.path and paths.of(fields.path)
  fields.aligning, fields.forks, fields.left, fields.teacher_results = false, {}, {}, {}
  fields.teachers = fields.teachers or {}
  fields.teacher = not fields.teachers[2] and fields.teachers[1] and fields.teachers[1].model or nil
  for _, name in ipairs(fields.forked or {}) do fields.forks[name] = { trunk = false, branch = false } end
  return setmetatable(fields, Context)
end

--- A data set's fields as a program's inputs, for a batch of `size` samples.
---@return table<string, perigee.Value>
function Context.inputs(program, data, size)
  local batch = {}
  for _, field in ipairs(data:fields()) do
    batch[field.name] = program:input(field.name, { size, unpack(field.shape) }, field.dtype)
  end
  return batch
end

--- The batch's images as the student trains on them, real [B,C,H,W]: pixels in [−1, 1] or scaled latents.
---@return perigee.Value
function Context:target_images()
  if not self.x0 then
    if self.batch.latents then self.x0 = self.data:latents(self.batch, self.state, self.dtype)
    else self.x0 = ops.images(self.batch.images, { scale = 2 / 255, offset = -1, dtype = self.dtype }) end
  end
  return self.x0
end

--- The batch's pixels in [0, 1], real [B,3,H,W]: of its field `images`, or what a data set's `pixels` method makes of
--- it.
---@return perigee.Value
function Context:pixels()
  if not self.pixel_images then
    if not self.data.pixels and not self.batch.images then
      core.fail("data set '%s' has no pixels for the teacher: no field `images`", self.data.name)
    end
    self.pixel_images = self.data.pixels and self.data:pixels(self.batch, self.dtype)
      or ops.images(self.batch.images, { scale = 1 / 255, offset = 0, dtype = self.dtype })
  end
  return self.pixel_images
end

local function forward(self)
  if not self.path then
    core.fail "a loss needs the denoising forward pass, but no loss.flow_matching says its path and times"
  end
  local taps = require "perigee.nn.taps"
  local x0 = self:target_images()
  local t = self.t or self.time:draw(x0.shape[1], self.state, op.stat(self.dtype), self.path)
  local noise = self.noise or ops.random_normal(x0.shape, { state = self.state, purpose = "noise", dtype = self.dtype })
  local x_t, velocity = self.path:noised(x0, noise, t)
  local given, count = conditions.values(self)
  self.given = { count = count, unpack(given, 1, count) }
  local variance
  local prediction, published = taps.collect(function()
    local first, second = self.student(x_t, self.path:told(t), unpack(given, 1, count))
    variance = second
    return first
  end)
  contract.expect_prediction(self.student, prediction, x_t)
  return { prediction = prediction, variance = variance, x_t = x_t, t = t, noise = noise, target = velocity,
    taps = published }
end

--- The student's forward pass: what it returns, `prediction` and perhaps `variance`; `velocity`, the prediction as one,
--- and `target`, the path's; x_t, t, noise, taps.
---@return { prediction: perigee.Value, variance?: perigee.Value, velocity: perigee.Value, target: perigee.Value,
---  x_t: perigee.Value, t: perigee.Value, noise: perigee.Value, taps: table<string, perigee.Value> }
function Context:forward()
  if not self.result then
    self.result = self.program:trace(forward, self)
    self.result.velocity = self:estimate "velocity"
  end
  return self.result
end

--- The forward pass of the student's moving average: on the same images, noise and conditions, at times that are less
--- by up to `ahead`, drawn for each sample, but not below 0. No gradient flows into it.
local function forward_of_average(self, ahead)
  local taps = require "perigee.nn.taps"
  local t, x0, list = self.result.t, self:target_images(), {}
  local drawn = ops.random_uniform({ t.shape[1] }, { state = self.state, purpose = "average's time", dtype = t.dtype })
  local earlier = ops.maximum(t - drawn * ahead, 0)
  for k, entry in ipairs(self.student:named_parameters()) do
    list[k] = { entry.tensor, self.program:operand(self.averages(entry.tensor)):to(self.dtype) }
  end
  local x_t = self.path:noised(x0, self.result.noise, earlier)
  local _, published = self.program:trace_with(list, taps.collect, function()
    return (self.student(x_t, self.path:told(earlier), unpack(self.given, 1, self.given.count)))
  end)
  return published
end

--- A value that the student's moving average publishes in a forward pass of its own, on the same images, noise and
--- conditions, nearer to the data by up to `ahead` (SRA, arXiv 2505.02831). It has no gradient.
---@param name string   such as "block 8"
---@param ahead number
---@return perigee.Value
function Context:average_tap(name, ahead)
  self:forward()
  self.average_taps = self.average_taps or {}
  self.average_taps[ahead] = self.average_taps[ahead] or self.program:trace(forward_of_average, self, ahead)
  local value = self.average_taps[ahead][name]
  if not value then
    core.fail("the student publishes no tap '%s'; it has %s", name,
      table.concat(tables.sorted_keys(self.average_taps[ahead]), ", "))
  end
  return ops.stop_gradient(value)
end

--- α, σ and their derivatives at the batch's times: values [B] in the dtype of statistics, or numbers.
---@return perigee.NoiseLevel
function Context:noise_level()
  local alpha, sigma, d_alpha, d_sigma = self.path:coefficients(self:forward().t)
  return { alpha = alpha, sigma = sigma, d_alpha = d_alpha, d_sigma = d_sigma }
end

--- A value of one kind as another, at the batch's times.
local function converted(self, value, from, to)
  if from == to then return value end
  local result, stat = self.result, op.stat(self.dtype)
  local shape = { result.t.shape[1] }
  for d = 2, #value.shape do shape[d] = 1 end
  local level = self:noise_level()
  for name, c in pairs(level) do level[name] = type(c) == "number" and c or c:reshape(shape) end
  return paths.convert(value:to(stat), from, to, result.x_t:to(stat), level, self.least_sigma):to(value.dtype)
end

--- The student's prediction as velocity, noise or data, [B,C,H,W].
---@param kind perigee.Prediction
---@return perigee.Value
function Context:estimate(kind)
  return converted(self, self:forward().prediction, self.prediction or "velocity", kind)
end

--- What such an estimate should be.
---@param kind perigee.Prediction
---@return perigee.Value
function Context:sought(kind)
  local result = self:forward()
  if kind == "data" then return self:target_images() end
  if kind == "noise" then return result.noise end
  if (self.least_sigma or 0) > 0 then return converted(self, self:target_images(), "data", "velocity") end
  return result.target
end

--- A value the student published in its forward pass.
---@param name string  such as "block 8"
---@return perigee.Value
function Context:tap(name)
  local value = self:forward().taps[name]
  if not value then
    local names = tables.sorted_keys(self.result.taps)
    core.fail("the student publishes no tap '%s'; it has %s", name, names[1] and table.concat(names, ", ")
      or ("none: call nn.taps.publish(\"%s\", value) in its forward"):format(name))
  end
  local fork = self.aligning and self.forks[name]
  if not fork then return value end
  fork.trunk, fork.branch = value, fork.branch or ops.branch(value)
  return fork.branch
end

--- A teacher by its name, or the only one.
local function teacher_of(self, name)
  if not self.teachers[1] then core.fail "a loss asks for the teacher, and the recipe names none" end
  return teachers.find(self.teachers, name, "this loss")
end

--- The encoder of a teacher, by its name where the recipe has several.
---@param name? string
---@return perigee.Vit
function Context:teacher_model(name) return teacher_of(self, name).model end

--- The teacher's patch grid for this student { rows, columns }.
---@param name? string  of the teacher, where the recipe has several
function Context:teacher_grid(name) return self:teacher_model(name):grid_for(self.student.grid) end

--- The forward pass itself.
local function run_teacher(self, teacher)
  local taps = require "perigee.nn.taps"
  local patches, published = taps.collect(function()
    return (teacher:features(self:pixels(), { grid = teacher:grid_for(self.student.grid),
      t = teacher.low_pass and self:forward().t or nil }))
  end)
  return { patches = patches, taps = published }
end

--- The same by inputs, each made when it is read.
local function read_teacher(kept, entry)
  local taps = setmetatable({}, { __index = function(_, name) return kept:value(entry, name) end })
  return setmetatable({ taps = taps }, {
    __index = function(_, key) return key == "patches" and kept:value(entry, key) or nil end,
  })
end

--- The teacher's forward pass: { patches, taps }.
---@param name? string  of the teacher, where the recipe has several
---@return { patches: perigee.Value, taps: table<string, perigee.Value> }
function Context:teacher_features(name)
  local entry = teacher_of(self, name)
  local results = self.teacher_results
  results[entry] = results[entry]
    or (self.kept and read_teacher(self.kept, entry) or self.program:trace(run_teacher, self, entry.model))
  return results[entry]
end

--- The teacher's queries and keys of a block, as ops.attention_alignment takes them: packed [B,skip+N,3,H,d], and
--- `skip`, the class and register tokens in front. The third part, the values, must not be read: with a cache it is a
--- filling.
---@param block integer
---@param name? string  of the teacher, where the recipe has several
---@return perigee.Value packed, integer skip
function Context:teacher_attention(block, name)
  local entry = teacher_of(self, name)
  if not self.kept then return self:teacher_features(name).taps["qkv of block " .. block], entry.model.prefix end
  local kept = self.kept:value(entry, "queries and keys of block " .. block)
  return ops.concat({ kept, kept:narrow(3, 1, 1) }, 3), 0
end

return Context
