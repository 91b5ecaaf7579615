--- A recipe at the REPL: its student, teacher, data and losses at hand, and a run of it that advances step by step.
---
---   batch = run:batch()
---   run:loss(batch)
---   run:step(100)
---   run:gradient { loss = "features", of = "block 3" }
---   run:picture { batch = batch, path = "batch.png" }
---   run:attention { block = 2, path = "attention.png" }
local attention_map = require "perigee.console.attention_map"
local check = require "perigee.core.check"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local Progress = require "perigee.record.progress"
local Run = require "perigee.train.run"
local recipes = require "perigee.recipe.load"
local stage_program = require "perigee.stage.program"
local tables = require "perigee.base.tables"

local tensor = core.tensor

---@class perigee.Session
local Session = {}
Session.__index = Session

local M = {}

function Session:__tostring()
  return ("run of %s, %d steps done, stage %s"):format(self.recipe.name, self.inner.step, self.inner.stage.name)
end

--- Loads a recipe and materialises it on a device, by default its own. `values` are the recipe's options.
---@return perigee.Session
function M.open(path, values, device)
  local load = recipes.load(path, { values = values })
  local recipe = load.value
  if not require("perigee.recipe").is_recipe(recipe) then
    error(("%s returns no recipe: its last line should be `return pg.recipe { ... }`"):format(path), 0)
  end
  recipe.cache_teacher = false -- here the teacher itself is at hand, and its results are the same
  return tensor.outlive(function()
    local inner = Run.new(recipe, {
      device = device or recipe.device, train = require("perigee.train").train,
      progress = Progress.new { clock = core_ffi.C.pg_clock_seconds },
    })
    inner:build_stage()
    return setmetatable({ path = path, values = values, recipe = recipe, inner = inner, stage = inner.stage,
                          optim = inner.optim, programs = {} }, Session)
  end)
end

--- How many steps were done.
function Session:steps() return self.inner.step end

--- The next batch: tensors of its own by field name.
function Session:batch()
  local batch = {}
  for name, t in pairs(self.inner:batch()) do batch[name] = t:clone() end
  self.last_batch = batch
  return batch
end

local function batch_of(self, batch) return batch or self.last_batch or self:batch() end

--- Optimisation steps (1 unless told otherwise), on batches from the data or on the one given. Returns the last losses
--- by name.
---@param given? integer|table  how many, or a batch
function Session:step(given)
  local inner = self.inner
  for _ = 1, type(given) == "number" and given or 1 do
    inner:queue_step(type(given) == "table" and given or nil)
    inner:collect(0)
  end
  return inner.losses
end

--- Goes to another stage by its name or number.
function Session:enter(stage)
  for k, candidate in ipairs(self.recipe.stages) do
    if stage == k or stage == candidate.name then
      self:forget()
      tensor.outlive(self.inner.enter_stage, self.inner, k)
      self.stage = self.inner.stage
      return self
    end
  end
  core_ffi.fail("the recipe '%s' has no stage '%s'", self.recipe.name, tostring(stage))
end

function Session:forget()
  for _, program in pairs(self.programs) do program.executable:free() end
  self.programs = {}
end

-- ---- a user's own programs over a batch -------------------------------------------------------------------------

--- Compiles `choose(trace) -> { name = value }` over a stage's forward pass, once for each key.
local function compiled(self, key, choose)
  if self.programs[key] then return self.programs[key] end
  local inner = self.inner
  local trace = stage_program.trace(inner.recipe, inner.stage, { batch = inner.micro })
  local values, outputs = choose(trace), {}
  for k, name in ipairs(tables.sorted_keys(values)) do outputs[k] = { name = name, value = values[name] } end
  self.programs[key] = tensor.outlive(function()
    return { executable = core.executable.compile(trace.program, outputs, { device = inner.device }) }
  end)
  return self.programs[key]
end

--- Runs such a program on the first `micro` samples of a batch.
local function evaluate(self, program, batch)
  local inner = self.inner
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
  for _, group in ipairs(self.inner.groups) do
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

--- The teacher's block whose attention a loss of the recipe compares with that of a student's block.
local function aligned_block(recipe, block)
  for _, stage in ipairs(recipe.stages) do
    for _, entry in ipairs(stage.losses) do
      for _, pair in ipairs(entry.loss.pairs or {}) do
        if pair.student == block then return pair.teacher end
      end
    end
  end
end

--- Writes an attention map as a PNG, the student's and, where the stage has a teacher, the teacher's to its right:
--- query tokens from top to bottom, keys from left to right, the mean over the heads or one of them. Returns the path.
---@param options { block: integer, teacher?: integer, image?: integer, head?: integer, batch?: table, path?: string }
function Session:attention(options)
  local o = check.options("run:attention", options, {
    block = "count", teacher = { "count" }, image = { "count", 1 }, head = { "count" }, batch = { "table" },
    path = { "string", "attention.png" },
  })
  local with_teacher = self.stage.needs_teacher and self.inner.recipe:teacher_model()
  local theirs = with_teacher and (o.teacher or aligned_block(self.recipe, o.block) or with_teacher.depth)
  local program = compiled(self, ("attention %d %s"):format(o.block, tostring(theirs)), function(trace)
    local values = { student = find(self, trace, "qkv of block " .. o.block) }
    if theirs then
      values.teacher = trace.context:teacher_features().taps["qkv of block " .. theirs]
        or core_ffi.fail("the teacher has no block %d", theirs)
    end
    return values
  end)
  local out, maps = evaluate(self, program, batch_of(self, o.batch)), {}
  for _, side in ipairs { "student", "teacher" } do
    if out[side] then
      local map = attention_map.of(out[side], o.image, side == "teacher" and with_teacher.prefix or 0)
      if o.head and not map[o.head] then core_ffi.fail("head %d of a %s with %d", o.head, side, #map) end
      maps[#maps + 1] = map
    end
  end
  require("perigee.io.png").save(o.path, attention_map.draw(maps, o.head))
  return o.path
end

--- Gives everything back.
function Session:close()
  self:forget()
  self.inner:free()
end

--- The names that a REPL has at hand.
function Session:names()
  local losses = {}
  for _, stage in ipairs(self.recipe.stages) do
    for _, entry in ipairs(stage.losses) do losses[entry.name] = entry.loss end
  end
  return {
    run = self, recipe = self.recipe, student = self.recipe.student, teacher = self.recipe:teacher_model(),
    data = self.recipe.data, losses = losses,
  }
end

return M
