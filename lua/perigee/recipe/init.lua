--- Recipes: the typed value that a recipe file returns. Building one touches no device and no file.

---@class perigee.RecipeOptions
---@field name string               letters, digits, '.', '_', '-'; the run's folder is called so
---@field seed? integer             0
---@field device? "cpu"|"cuda"      where it trains unless the command says otherwise: cpu
---@field tf32? boolean             lets a GPU compute float32 products from TF32: false
---@field precision? "float32"|"bf16"|"float64"  float32
---@field student perigee.Module    what is trained
---@field teacher? perigee.Vit|perigee.Recipe  an encoder, or a recipe whose student is one: it is trained first,
---  and cached
---@field teachers? table<string, perigee.Vit|perigee.Recipe>  several, by the names that losses call them by
---@field data perigee.Dataset
---@field test? perigee.Dataset     what training does not see: `perigee eval` compares with it
---@field optim? perigee.Optimiser  pg.optim.adamw {} with its defaults
---@field ema? number|perigee.Schedule  decay of the moving averages: pg.schedule.averages { decay = 0.9999 }
---@field stages perigee.StageOptions[]
---@field every? perigee.Every
---@field micro? integer            images a pass, a divisor of the batch: the batch itself; on a GPU what the plan
---                                  finds fastest of what fits
---@field recompute? boolean         GELU, normalisations and the like are computed again in the backward pass (true) or
---                                  kept for it (false, more memory): kept on a GPU that has room, else computed again
---@field keep? integer             checkpoints kept: 3
---@field sample? perigee.SampleSettings  how samples are drawn, during the run and by `perigee sample`
---@field evaluation? perigee.EvaluationSettings  FID and its relatives, every `every.eval` steps
---@field decode? perigee.AutoencoderKl|perigee.AutoencoderTiny  makes pictures of a student's latents, when samples
---  are drawn
---@field threads? integer          processor threads: all that the process may use
---@field cache_teacher? boolean|perigee.CacheTeacher  keep what losses read of the teacher on disk: false

---@class perigee.CacheTeacher
---@field precision? "float32"|"bf16"|"float64"  of what is kept: the recipe's
---@field limit_gib? number                      all files of a run together: 16

---@class perigee.StageOptions
---@field name string
---@field losses { [1]: number|perigee.Schedule, [2]: perigee.Loss }[]  pairs { weight, loss }
---@field finish perigee.Stop
---@field signals? perigee.Signal[]  measured and logged in addition to those that `finish` reads

---@class perigee.Every
---@field log? integer         steps between lines of the log: 100
---@field sample? integer      steps between pictures; 0, the default: at the end only
---@field eval? integer        steps between evaluations, as `evaluation` says; 0, the default: none
---@field checkpoint? integer  steps between checkpoints; 0: at the end only. If it is not given:
---@field minutes? number      minutes between checkpoints: 10; 0: at the end only

local check = require "perigee.core.check"
local conditions = require "perigee.stage.conditions"
local contract = require "perigee.stage.student"
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local optim = require "perigee.optim"
local schedules = require "perigee.schedules"
local tables = require "perigee.base.tables"
local teachers = require "perigee.stage.teachers"
local tensor = require "perigee.core.tensor"

---@class perigee.Recipe
---@field name string
---@field seed integer
---@field dtype perigee.Dtype
---@field student perigee.Module
---@field teachers perigee.RecipeTeacher[]
---@field data perigee.Dataset
---@field batch integer
---@field micro integer
---@field leaves_micro boolean  the recipe doesn't say `micro`: a GPU's memory may decide
---@field place? string  where it was written: "recipe.lua:12"
local Recipe = {}
Recipe.__index = Recipe

local M = {}
function M.is_recipe(x) return getmetatable(x) == Recipe end

local precisions = { float32 = "float32", bf16 = "bfloat16", float64 = "float64" }

local AVERAGES = schedules.averages { decay = 0.9999 } -- where a recipe says nothing of them
local CHANGING = "pg.schedule.linear { from = 0.5, to = 0, finish = 20000 }"
local WEIGHT = { "number", least = 0, instead = "for a weight that changes, write " .. CHANGING }

--- A stage's entry { weight, loss }, checked.
local function pair_of(what, entry)
  local losses = require "perigee.losses"
  if losses.is_loss(entry) then
    core.fail("%s is a loss without its weight; expected a pair { weight, loss }, such as { 1, loss.flow_matching() }",
      what)
  elseif type(entry) ~= "table" then
    core.fail("%s is a %s; expected a pair { weight, loss }: losses = { { 1, denoise }, { 0.5, features } }", what,
      type(entry))
  end
  local weight, loss = entry[1], entry[2]
  if losses.is_loss(weight) then core.fail("%s: the loss comes first; expected a pair { weight, loss }", what) end
  schedules.check(what .. ": the weight", weight, WEIGHT)
  if not losses.is_loss(loss) then
    core.fail("%s: after the weight comes a %s; expected a loss, such as loss.flow_matching()", what, type(loss))
  end
  return weight, loss
end

local LOSSES = { "table", required = true, words = "a list of pairs { weight, loss }" }
local FINISH = { "table", words = "a stop, such as stop.at_step(1000)",
  instead = "a function of your own is stop.custom { function(event, state) ... end }" }

local function stage_value(given, number, names)
  local signals, stops = require "perigee.signals", require "perigee.stops"
  local what = ("stage %d"):format(number)
  local o = check.options(what, given,
    { name = "string", losses = LOSSES, finish = FINISH, signals = { "table", {} } })
  what = ("stage '%s'"):format(o.name)
  if names[o.name] then core.fail("two stages are named '%s'", o.name) end
  names[o.name] = true
  if require("perigee.losses").is_loss(o.losses) then
    core.fail("%s: losses is one loss; expected a list of pairs: { { 1, loss.flow_matching() } }", what)
  end
  if #o.losses == 0 then core.fail("%s has no losses", what) end
  if not o.finish then
    core.fail("%s: 'finish' is missing; say when the stage ends, e.g. finish = stop.at_step(1000)", what)
  end
  if not stops.is_stop(o.finish) then core.fail("%s: finish is not a stop; see pg.stop", what) end
  signals.of_stage(o.finish, o.signals)
  local stage, seen = { name = o.name, index = number, losses = {}, finish = o.finish, signals = o.signals }, {}
  for k, entry in ipairs(o.losses) do
    local weight, loss = pair_of(("%s: losses[%d]"):format(what, k), entry)
    if seen[loss.name] then core.fail("%s: two losses are named '%s'; give one another name", what, loss.name) end
    seen[loss.name] = true
    stage.losses[k] = { name = loss.name, weight = weight, loss = loss }
  end
  return stage
end

--- Two losses written out twice with the same settings are one; those of functions of the recipe's own never are.
local function are_one(a, b)
  local json = require "perigee.io.json"
  return a == b or (a.kind == b.kind and not a.code and json.encode(a.settings) == json.encode(b.settings))
end

--- Losses of one name must be one loss in all stages: their projectors and weights are reached by name.
local function check_names(stages)
  local by_name = {}
  for _, stage in ipairs(stages) do
    for _, entry in ipairs(stage.losses) do
      local other = by_name[entry.name]
      if other and not are_one(other, entry.loss) then
        core.fail("two different losses are named '%s' (stage '%s'); give one another name", entry.name, stage.name)
      end
      entry.loss = other or entry.loss
      by_name[entry.name] = entry.loss
    end
  end
end

--- The option `cache_teacher` as { dtype, limit_gib }, or false.
local function cache_option(given, o)
  if not given then return false end
  local cache = check.options("recipe: cache_teacher", given == true and {} or given, {
    precision = { "string", o.precision }, limit_gib = { "number", 16, above = 0 },
  })
  cache.dtype = precisions[cache.precision]
  if not cache.dtype then
    core.fail("recipe: cache_teacher: unknown precision '%s'; expected float32, bf16 or float64", cache.precision)
  end
  if not o.teachers[1] then core.fail "recipe: cache_teacher, and the recipe names no teacher" end
  for _, entry in ipairs(o.teachers) do
    if entry.model.low_pass then
      core.fail("recipe: cache_teacher keeps one result an image and its mirror image, but what the teacher %s sees "
        .. "depends on the time (low_pass); use cache_teacher = false", entry.model.name)
    end
  end
  if (o.data.crop or 0) > 0 then
    core.fail("recipe: cache_teacher keeps one result an image and its mirror image, but the data set '%s' crops at "
      .. "random (crop = %d); use crop = 0 or cache_teacher = false", o.data.name, o.data.crop)
  end
  return cache
end

local function needs_teacher(stage)
  for _, entry in ipairs(stage.losses) do
    if entry.loss.needs_teacher then return true end
  end
  return false
end

--- pg.recipe { name, seed, precision, student, teacher or teachers, data, optim, ema, stages, every, micro, keep,
---   sample, evaluation, threads, cache_teacher, device, tf32 }
---@param given perigee.RecipeOptions
---@return perigee.Recipe
function M.new(given)
  local o = schedules.options("recipe", given, {
    name = "string", seed = { "natural", 0 }, precision = { "string", "float32" },
    student = { "table", required = true, words = "a model, such as pg.models.sit_s_2 {}" },
    teacher = { "table", words = "an encoder, such as pg.models.dinov2_vit_b_14 { weights = \"FILE\" }, or a recipe" },
    teachers = { "table", words = "a table of encoders by name, such as { dino = pg.models.dinov2_vit_b_14 {} }" },
    cache_teacher = { "boolean|table", false },
    data = { "table", required = true, words = "a data set, such as pg.data.folder { dir = \"FOLDER\", batch = 64 }" },
    test = { "table" }, micro = { "count" }, recompute = { "boolean" },
    optim = { "table", optim.adamw() }, ema = { "number", AVERAGES, least = 0, below = 1 },
    stages = "table", every = { "table", {} }, keep = { "count", 3 }, sample = { "table", {} },
    evaluation = { "table" },
    decode = { "table", words = "an autoencoder, such as pg.models.autoencoder_kl { weights = \"FILE\" }" },
    device = { "string", "cpu" }, threads = { "count" }, tf32 = { "boolean", false },
  }, "ema")
  if not core.device_code[o.device] then
    core.fail("recipe: unknown device '%s'; expected %s", o.device, core.devices_text)
  end
  if not o.name:match "^[%w%._-]+$" then
    core.fail("recipe: the name '%s' may hold letters, digits, '.', '_' and '-' only", o.name)
  end
  o.dtype = precisions[o.precision]
  if not o.dtype then core.fail("recipe: unknown precision '%s'; expected float32, bf16 or float64", o.precision) end
  o.teachers = teachers.of(o, M.is_recipe)
  o.cache_teacher = cache_option(o.cache_teacher, o)
  if not optim.is_optimiser(o.optim) then
    core.fail "recipe: optim is a table; expected an optimiser, such as pg.optim.adamw { lr = 1e-4 }"
  end
  o.every = check.options("recipe: every", o.every, {
    log = { "count", 100 }, sample = { "natural", 0 }, eval = { "natural", 0 }, checkpoint = { "natural" },
    minutes = { "number", 10, least = 0 },
  })
  contract.expect_model(o.student)
  if type(o.data.batch) ~= "number" or not o.data.fields then
    core.fail "recipe: data is a table; expected a data set, such as pg.data.shapes { batch = 16 }"
  end
  if o.stages.losses then core.fail "recipe: stages is one stage; expected a list: { { name = ..., losses = ... } }" end
  if #o.stages == 0 then core.fail "recipe: stages lists no stage" end
  local stages, names = {}, {}
  for k, stage in ipairs(o.stages) do
    stages[k] = stage_value(stage, k, names)
    if needs_teacher(stages[k]) and not o.teachers[1] then
      core.fail("stage '%s' has a loss that needs a teacher, and the recipe names none", stages[k].name)
    end
    stages[k].needs_teacher = needs_teacher(stages[k])
    for _, entry in ipairs(stages[k].losses) do
      core.at(entry.loss.place, teachers.of_loss, o.teachers, entry.loss)
      contract.expect(o.student, entry.loss.asks or {}, ("loss '%s'"):format(entry.name))
    end
  end
  check_names(stages)
  for _, stage in ipairs(stages) do
    for _, entry in ipairs(stage.losses) do
      if entry.loss.is_denoising then conditions.resolve(o.student, o.data) end
    end
  end
  o.stages = stages
  o.sample = require("perigee.recipe.sampling").settings("recipe: sample", o.sample, o.student, nil, Recipe.path(o))
  if o.evaluation then
    o.evaluation = require("perigee.recipe.evaluation").settings("recipe: evaluation", o.evaluation, o.student,
      o.sample, Recipe.path(o))
  elseif o.every.eval > 0 then
    core.fail "recipe: every.eval without `evaluation`; expected evaluation = { inception = FILE, reference = FILE }"
  end
  local batch = o.data.batch
  o.batch, o.micro, o.leaves_micro = batch, o.micro or batch, o.micro == nil
  if batch % o.micro ~= 0 then core.fail("recipe: micro = %d does not divide batch = %d", o.micro, batch) end
  o.place = core.user_position()
  return setmetatable(o, Recipe)
end

--- Has a stage a loss of this kind?
local function trains(self, kind)
  for _, stage in ipairs(self.stages) do
    for _, entry in ipairs(stage.losses) do
      if entry.loss.kind == kind then return true end
    end
  end
  return false
end

local function validate(self)
  local signals = require "perigee.signals"
  local student, data = self.student, self.data
  if student.learned_variance and not trains(self, "variational_bound") then
    core.fail("the student learns a variance, which no loss trains; add { 1, loss.variational_bound() }, or build it "
      .. "with learned_variance = false")
  end
  if student.size and data.height
    and (student.channels ~= data.channels or student.size[1] ~= data.height or student.size[2] ~= data.width) then
    core.fail("the student takes %d channels of %dx%d, the data set '%s' gives %d of %dx%d", student.channels,
      student.size[1], student.size[2], data.name, data.channels, data.height, data.width)
  end
  if student.classes and data.classes and data.classes > student.classes then
    core.fail("the student knows %d classes, the data set '%s' has %d", student.classes, data.name, data.classes)
  end
  for _, entry in ipairs(self.teachers) do
    if not entry.model.features then
      core.fail("%s, a %s, is not an encoder: it has no features", self.teachers[2] and "teachers." .. entry.name
        or "the teacher", entry.model.name)
    end
  end
  for _, stage in ipairs(self.stages) do
    for _, entry in ipairs(stage.losses) do
      if entry.loss.validate then
        core.at(entry.loss.place, entry.loss.validate, entry.loss, student, self:teacher_for(entry.loss))
      end
    end
    for _, signal in ipairs(signals.of_stage(stage.finish, stage.signals)) do
      core.at(signal.place, signal.check, signal, stage, self)
    end
  end
end

--- Checks what needs student and teacher together: blocks, heads, grids, and that each stage can measure its signals.
--- Called before a run, a plan or a trace.
---@return perigee.Recipe
function Recipe:validate()
  core.at(self.place, validate, self)
  return self
end

--- The recipe with other settings; models, losses and data are the same.
---@return perigee.Recipe
function Recipe:with(changes) return setmetatable(tables.merged(self, changes), Recipe) end

--- An error if a batch is larger than the data, which are open. A data set that is endless has no count.
function Recipe:expect_data()
  local count = self.data.count
  if count and self.batch > count then
    core.at(self.place, core.fail, "recipe: batch = %d, but the data set '%s' has %d samples", self.batch,
      self.data.name, count)
  end
end

--- The encoder of a loss: that of the teacher it names, or of the only one; nil where there is none, or where it names
--- none of several.
---@param loss perigee.Loss
---@return perigee.Vit?
function Recipe:teacher_for(loss)
  if loss.teacher then return teachers.find(self.teachers, loss.teacher, ("loss '%s'"):format(loss.name)).model end
  return not self.teachers[2] and self.teachers[1] and self.teachers[1].model or nil
end

--- The teachers that the losses of a stage read.
---@return perigee.RecipeTeacher[]
function Recipe:teachers_of(stage) return teachers.of_stage(self.teachers, stage) end

--- The moving average of a parameter of the student, as losses read it: a tensor of a run, or one without storage.
---@param parameter perigee.Tensor
---@return perigee.Tensor
function Recipe:average_of(parameter)
  self.averages = self.averages or {}
  if not self.averages[parameter] then
    local t = tensor.meta(parameter.shape, op.stat(self.dtype))
    rawset(t, "role", "average")
    self.averages[parameter] = t
  end
  return self.averages[parameter]
end

--- The flow-matching loss of a stage, or of the first stage that has one: it says the path and the times.
function Recipe:flow_matching(stage)
  local function find(s)
    for _, entry in ipairs(s.losses) do
      if entry.loss.is_denoising then return entry.loss end
    end
  end
  local found = stage and find(stage)
  for _, s in ipairs(self.stages) do found = found or find(s) end
  return found
end

--- The path of the student's loss, if it has a denoising one.
---@return perigee.Path?
function Recipe:path()
  local matching = Recipe.flow_matching(self)
  return matching and matching.path
end

--- The modules that losses train with the student: loss name -> { name -> module }, made once.
function Recipe:loss_modules()
  if not self.made_modules then
    self.made_modules = {}
    for _, stage in ipairs(self.stages) do
      for _, entry in ipairs(stage.losses) do
        if not self.made_modules[entry.name] then
          self.made_modules[entry.name] = entry.loss:modules(self.student, self:teacher_for(entry.loss))
        end
      end
    end
  end
  return self.made_modules
end

--- The modules that a stage trains, or all of them: the student, then those of the losses in their order, by name.
---@param stage? table
---@return { name: string, module: perigee.Module, loss?: string }[]  `name` begins the parameters' names; `loss`: whose
function Recipe:trained_modules(stage)
  local list, done = { { name = "student", module = self.student } }, {}
  for _, s in ipairs(stage and { stage } or self.stages) do
    for _, entry in ipairs(s.losses) do
      local modules = self:loss_modules()[entry.name]
      for _, name in ipairs(done[entry.name] and {} or tables.sorted_keys(modules)) do
        list[#list + 1] = { name = ("losses.%s.%s"):format(entry.name, name), module = modules[name],
          loss = entry.name }
      end
      done[entry.name] = true
    end
  end
  return list
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
