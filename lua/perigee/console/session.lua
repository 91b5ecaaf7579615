--- A recipe or a run at the REPL: student, teacher, data and losses at hand, and `run`, which advances step by step in
--- memory. `run` has the names that it has in a console of a running trainer (console/control.lua).
---
---   batch = run:batch()
---   run:loss(batch)
---   run:train(100)
---   run:gradient { loss = "features", of = "block 3" }
---   run:picture { batch = batch, path = "batch.png" }
---   run:attention { block = 2, path = "attention.png" }
local attention_map = require "perigee.console.attention_map"
local changes = require "perigee.train.changes"
local check = require "perigee.core.check"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local nearest = require "perigee.base.nearest"
local opening = require "perigee.console.opening"
local stage_program = require "perigee.stage.program"
local stops = require "perigee.stops"
local tables = require "perigee.base.tables"
local teachers = require "perigee.stage.teachers"

local tensor = core.tensor

---@class perigee.Session
---@field step integer           steps done
---@field name string            the recipe's
---@field folder string|false    of the run that was opened; false: a recipe was
---@field stage table            name, index, losses (each with weight), finish
---@field optim table            lr, betas, clip, ...
---@field ema number
---@field losses table<string, number>  of the last step
---@field gradient_norm number
---@field batch_size integer
local Session = {}

local M = {}

-- ---- names ------------------------------------------------------------------------------------------------------

local class = {}
local hidden = setmetatable({}, { __mode = "k" }) -- session -> what it works with

--- The stage as a person sees it: its policy is set with what it needs.
local function stage_view(inner)
  return setmetatable({}, {
    __index = inner.stage,
    __newindex = function(_, key, value)
      if key ~= "finish" then core_ffi.fail("run.stage.%s cannot be set; what can: finish", tostring(key)) end
      if not stops.is_stop(value) then
        core_ffi.fail("run.stage.finish: expected a stop such as stop.at_step(1000), got a %s", type(value))
      end
      inner:set_finish(value)
    end,
    __tostring = function() return require("perigee.recipe.describe").stage(inner.stage) end,
    names = function() return { "name", "index", "losses", "finish" } end,
  })
end

local read = {
  step = function(inner) return inner.step end, name = function(inner) return inner.recipe.name end,
  stage = stage_view, optim = function(inner) return inner.optim end, ema = function(inner) return inner.ema end,
  losses = function(inner) return inner.losses end, gradient_norm = function(inner) return inner.gradient_norm end,
  batch_size = function(inner) return inner.batch_size end,
}

local write = {
  ema = function(inner, v) inner:set_ema(check.value("run.ema", v, { "number", least = 0, below = 1 })) end,
}

--- Names that a console of a running trainer has and a run in memory does not.
local elsewhere = {
  pause = "it stands still between two calls of run:train", resume = "run:train(n) trains n steps",
  paused = "it stands still between two calls of run:train",
  checkpoint = "it is in memory and writes no folder; pg.save(\"x.safetensors\", { name = tensor }) keeps tensors",
}

local function names_of_run() return tables.sorted_keys(tables.merged(read, Session, { folder = true })) end

function class.__index(self, key)
  if Session[key] then return Session[key] end
  local of = hidden[self]
  if key == "folder" then return of.folder end
  if read[key] then return read[key](of.inner) end
  if elsewhere[key] then core_ffi.fail("run.%s is a running trainer's; in the REPL a run has none: %s", key,
    elsewhere[key]) end
  core_ffi.fail("run has no '%s'%s", tostring(key), nearest.hint(tostring(key), names_of_run()))
end

function class.__newindex(self, key, value)
  if not write[key] then
    core_ffi.fail("run.%s cannot be set; what can: ema, run.optim.NAME, run.stage.losses.NAME.weight, "
      .. "run.stage.finish, and tensors by run:set(name, tensor)", tostring(key))
  end
  write[key](hidden[self].inner, value)
end

function class:__tostring()
  local of = hidden[self]
  return ("run %s at step %d, stage %s%s"):format(of.recipe.name, of.inner.step, of.inner.stage.name,
    of.source and ", " .. of.source or "")
end

class.names = names_of_run

--- Opens a recipe, or with its trained tensors a run's folder or checkpoint (console/opening.lua).
---@param path string
---@param options? perigee.OpeningOptions
---@return perigee.Session
function M.open(path, options)
  local self = setmetatable({}, class)
  hidden[self] = opening.open(path, options or {})
  hidden[self].programs = {}
  return self
end

--- Optimisation steps (1 unless told otherwise), on batches from the data or on the one given. Returns the last losses
--- by name. No policy is asked: run:enter goes to another stage.
---@param given? integer|table  how many, or a batch
function Session:train(given)
  local inner = hidden[self].inner
  for _ = 1, type(given) == "number" and given or 1 do
    inner:queue_step(type(given) == "table" and given or nil)
    inner:collect(0)
  end
  return inner.losses
end

local function forget(self)
  for _, program in pairs(self.programs) do program.executable:free() end
  self.programs = {}
end

--- An error where the run has given back what a stage trains.
local function expect_modules(recipe, stage)
  for _, trained in ipairs(recipe:trained_modules(stage)) do
    if not trained.module:is_materialised() then
      core_ffi.fail("run:enter: stage '%s' trains '%s', which this run has given back; open the recipe, or a "
        .. "checkpoint of that stage", stage.name, trained.name)
    end
  end
end

--- Goes to another stage by its name or number.
---@param stage string|integer
function Session:enter(stage)
  local of = hidden[self]
  for k, candidate in ipairs(of.recipe.stages) do
    if stage == k or stage == candidate.name then
      expect_modules(of.recipe, candidate)
      forget(of)
      tensor.outlive(of.inner.enter_stage, of.inner, k)
      opening.provide_teacher(of.inner)
      return self
    end
  end
  core_ffi.fail("the recipe '%s' has no stage '%s'", of.recipe.name, tostring(stage))
end

--- Ends the stage: goes to the next one.
function Session:finish_stage()
  local of = hidden[self]
  if of.inner.stage.index == #of.recipe.stages then
    core_ffi.fail("run:finish_stage: '%s' is the last stage", of.inner.stage.name)
  end
  return self:enter(of.inner.stage.index + 1)
end

-- ---- tensors ----------------------------------------------------------------------------------------------------

--- A copy of one of the run's tensors: "student.blocks.1.mlp.hidden.weight"; `ema.` in front of a parameter's name is
--- its moving average, `optimizer.m.` its first moment.
---@param name string
---@return perigee.Tensor
function Session:parameter(name) return changes.tensor(hidden[self].inner, name):clone() end

--- Names of the run's tensors that begin with a text ("student." unless told otherwise), sorted.
---@param prefix? string
---@return string[]
function Session:parameters(prefix) return changes.names(hidden[self].inner, prefix or "student.") end

--- Replaces one of the run's tensors, in memory.
---@param name string
---@param value perigee.Tensor  of the same shape
function Session:set(name, value)
  local inner = hidden[self].inner
  changes.check_tensor(inner, name, value):copy_(value:to "float32")
  for _, group in ipairs(inner.groups) do group:refresh() end
end

--- The next batch: tensors of its own by field name.
function Session:batch()
  local batch = {}
  for name, t in pairs(hidden[self].inner:batch()) do batch[name] = t:clone() end
  hidden[self].last_batch = batch
  return batch
end

local function batch_of(self, batch) return batch or hidden[self].last_batch or self:batch() end

-- ---- further programs over a batch -------------------------------------------------------------------------

--- Compiles `choose(trace) -> { name = value }` over a stage's forward pass, once for each key.
local function compiled(self, key, choose)
  local of = hidden[self]
  if of.programs[key] then return of.programs[key] end
  local inner = of.inner
  local trace = stage_program.trace(inner.recipe, inner.stage, { batch = inner.micro })
  local values, outputs = choose(trace), {}
  for k, name in ipairs(tables.sorted_keys(values)) do outputs[k] = { name = name, value = values[name] } end
  of.programs[key] = tensor.outlive(function()
    return { executable = core.executable.compile(trace.program, outputs, { device = inner.device }) }
  end)
  return of.programs[key]
end

--- Runs such a program on the first `micro` samples of a batch.
local function evaluate(self, program, batch)
  local inner = hidden[self].inner
  local inputs = inner:bind_weights { state = inner.random_state }
  for name, t in pairs(batch) do
    inputs[name] = t.shape[1] == inner.micro and t or t:narrow(1, 1, inner.micro):contiguous()
  end
  inner:set_random_state(inner.step, 0)
  return program.executable:run(inputs)
end

--- The losses of a batch by name, and their weighted sum as `total`; nothing is trained. The times and the noise are
--- those that the next step would draw.
function Session:loss(batch)
  local program = compiled(self, "losses", function(trace)
    local values = { total = trace.total }
    for name, value in pairs(trace.losses) do values["loss " .. name] = value end
    return values
  end)
  local result = {}
  for name, t in pairs(evaluate(self, program, batch_of(self, batch))) do result[name:gsub("^loss ", "")] = t:item() end
  return result
end

--- Finds what a name stands for in a trace: a tap of the student's, or a parameter (student.…, losses.NAME.…).
local function find(self, trace, name)
  local published = trace.context:forward().taps
  if published[name] then return published[name] end
  local names = tables.sorted_keys(published)
  for _, group in ipairs(hidden[self].inner.groups) do
    for _, entry in ipairs(group:trained()) do
      if entry.name == name then return trace.program:capture(entry.tensor) end
      names[#names + 1] = entry.name
    end
  end
  core_ffi.fail("unknown tap or parameter '%s'%s", tostring(name),
    require("perigee.base.nearest").hint(tostring(name), names))
end

--- The gradient of a loss ("total": the weighted sum) with respect to a tap or a parameter, for a batch.
---@param options { loss: string, of: string, batch?: table }
function Session:gradient(options)
  local o = check.options("run:gradient", options, { loss = { "string", "total" }, of = "string", batch = { "table" } })
  local program = compiled(self, "gradient of " .. o.loss .. " / " .. o.of, function(trace)
    local loss = o.loss == "total" and trace.total or trace.losses[o.loss]
    if not loss then
      core_ffi.fail("the stage '%s' has no loss '%s'; it has %s", self.stage.name, o.loss,
        table.concat(tables.sorted_keys(trace.losses), ", "))
    end
    local of = find(self, trace, o.of)
    local one = tensor.outlive(tensor.tensor, 1, {}, loss.dtype)
    local gradient = core.gradient(trace.program, { loss }, { one }, { of })[1]
    if not gradient then core_ffi.fail("the loss '%s' does not depend on '%s'", o.loss, o.of) end
    return { gradient = gradient }
  end)
  return evaluate(self, program, batch_of(self, o.batch)).gradient:clone()
end

--- A value that the student publishes under a name, for a batch: "block 3", "qkv of block 2", ...
function Session:tap(name, batch)
  local program = compiled(self, "tap " .. name, function(trace) return { tap = find(self, trace, name) } end)
  return evaluate(self, program, batch_of(self, batch)).tap:clone()
end

-- ---- pictures ---------------------------------------------------------------------------------------------------

--- Writes a batch's images as one PNG; returns its path.
---@param options? { batch?: table, path?: string, columns?: integer }
function Session:picture(options)
  local o = check.options("run:picture", options or {},
    { batch = { "table" }, path = { "string", "batch.png" }, columns = { "integer" } })
  local images = batch_of(self, o.batch).images
  if not images then core_ffi.fail "run:picture: this data set has no images, but latents" end
  require("perigee.io.png").save(o.path, require("perigee.sampling.grid").join(images, o.columns))
  return o.path
end

--- The teacher and its block whose attention a loss of the recipe compares with that of a student's block; otherwise
--- the first teacher and its last block. `of`: the teacher's name. Nil where there is no teacher, or it is not at hand.
---@return perigee.RecipeTeacher?, integer?
local function aligned_block(inner, block, of)
  local recipe = inner.recipe
  local found, theirs = recipe.teachers[1], nil
  if of then found = teachers.find(recipe.teachers, of, "run:attention") end
  for _, stage in ipairs(recipe.stages) do
    for _, entry in ipairs(stage.losses) do
      for _, pair in ipairs(entry.loss.pairs or {}) do
        local teacher = teachers.of_loss(recipe.teachers, entry.loss)[1]
        if pair.student == block and not theirs and (not of or teacher == found) then
          found, theirs = teacher, pair.teacher
        end
      end
    end
  end
  if not found or not inner.teacher.ready[found] then return nil end
  return found, theirs or found.model.depth
end

--- The taps that hold a block's queries and keys, the student's and, where there is one, the teacher's.
local function attention_program(self, block, teacher, theirs)
  local name = teacher and teacher.name
  return compiled(self, ("attention %d %s %s"):format(block, tostring(name), tostring(theirs)), function(trace)
    local values = { student = find(self, trace, "qkv of block " .. block) }
    if teacher then
      values.teacher = trace.context:teacher_features(name).taps["qkv of block " .. theirs]
        or core_ffi.fail("the teacher has no block %d", theirs)
    end
    return values
  end)
end

--- The maps of one image, the student's and the teacher's, with their grids.
local function attention_sides(self, o)
  local of = hidden[self]
  local student = of.recipe.student
  local teacher, theirs = aligned_block(of.inner, o.block, o.of)
  theirs = teacher and (o.teacher or theirs)
  local out = evaluate(self, attention_program(self, o.block, teacher, theirs), batch_of(self, o.batch))
  local sides = { { map = attention_map.of(out.student, o.image, 0), grid = student.grid } }
  if teacher then
    sides[2] = { map = attention_map.of(out.teacher, o.image, teacher.model.prefix),
      grid = teacher.model:grid_for(student.grid) }
  end
  for k, name in ipairs { "student", "teacher" } do
    local heads = sides[k] and sides[k].map.shape[1]
    if heads and o.head and o.head > heads then core_ffi.fail("head %d of a %s with %d", o.head, name, heads) end
  end
  return sides
end

--- Writes attention maps of one image as a PNG: the picture with a query's patch outlined; then for the student, and
--- for the teacher if it is at hand, the picture as bright as that query attends to it, and the whole map, queries from
--- top to bottom, keys from left to right. Each map is scaled by a quantile of its weights, without those of keys that
--- nearly every query attends to. The mean over the heads, or one of them. Returns the path.
---@param options { block: integer, teacher?: integer, of?: string, image?: integer, query?: integer[], head?: integer,
---  batch?: table, path?: string }  teacher: its block; of: its name, where the recipe has several; query: { row,
---  column } of the student's patches
function Session:attention(options)
  local o = check.options("run:attention", options, {
    block = "count", teacher = { "count" }, of = { "string" }, image = { "count", 1 }, query = { "table" },
    head = { "count" }, batch = { "table" }, path = { "string", "attention.png" },
  })
  local of = hidden[self]
  local batch, grid = batch_of(self, o.batch), of.recipe.student.grid
  if o.image > of.inner.micro then core_ffi.fail("image %d of a batch with %d", o.image, of.inner.micro) end
  for d = 1, o.query and 2 or 0 do
    local place = o.query[d]
    if type(place) ~= "number" or place % 1 ~= 0 or place < 1 or place > grid[d] then
      core_ffi.fail("run:attention: query = { %s, %s }; expected { row, column } of %d by %d patches",
        tostring(o.query[1]), tostring(o.query[2]), grid[1], grid[2])
    end
  end
  local drawn = attention_map.draw(batch.images and batch.images:select(1, o.image), attention_sides(self, o), o.query,
    o.head)
  require("perigee.io.png").save(o.path, drawn)
  return o.path
end

--- Samples with the weights at hand, as one PNG; settings are the recipe's unless given. Returns the path.
---@param options? table  count, steps, cfg, ... as for `sample` of a recipe, and path
function Session:sample(options)
  local of, given = hidden[self], tables.copy(options or {})
  local path = check.value("run:sample: path", given.path or "samples.png", { "string" })
  given.path = nil
  local settings = require("perigee.recipe.sampling").settings("run:sample", given, of.recipe.student, of.recipe.sample,
    of.recipe:path())
  local images = require("perigee.sampling.generate").all(of.recipe, settings, { device = of.inner.device })
  require("perigee.io.png").save(path, require("perigee.sampling.grid").join(images))
  return path
end

--- Gives everything back.
function M.close(session)
  forget(hidden[session])
  hidden[session].inner:free()
end

--- Several teachers' models by name, or nil.
local function models_of(recipe)
  if not recipe.teachers[2] then return nil end
  local models = {}
  for _, entry in ipairs(recipe.teachers) do models[entry.name] = entry.model end
  return models
end

--- What a REPL has at hand.
function M.names(session)
  local recipe, losses = hidden[session].recipe, {}
  for _, stage in ipairs(recipe.stages) do
    for _, entry in ipairs(stage.losses) do losses[entry.name] = entry.loss end
  end
  return {
    run = session, recipe = recipe, student = recipe.student, data = recipe.data, losses = losses,
    teacher = #recipe.teachers == 1 and recipe.teachers[1].model or nil, teachers = models_of(recipe),
  }
end

return M
