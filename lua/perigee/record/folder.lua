--- A run's folder: the recipe as it was, config.json, the event log, and the way back in with --resume.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local checkpoint = require "perigee.record.checkpoint"
local choices = require "perigee.record.choices"
local device = require "perigee.core.device"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local turn = require "perigee.record.turn"

local C = core.C
local M = {}

function M.describe_losses(stage)
  local texts = {}
  for k, entry in ipairs(stage.losses) do texts[k] = ("%g·%s"):format(entry.weight, entry.name) end
  return table.concat(texts, " + ")
end

--- The step's losses in the stage's order.
function M.loss_pairs(run)
  local pairs_list = {}
  for k, entry in ipairs(run.stage.losses) do pairs_list[k] = { entry.name, run.losses[entry.name] or 0 } end
  return pairs_list
end

--- The step at which a recipe ends at the latest, where its stops say one.
function M.last_step(recipe) return recipe.stages[#recipe.stages].finish:latest() end

--- What a model or a data set says of itself: its numbers, texts, switches and lists of numbers.
local function describe(model)
  if not model then return nil end
  local described = {}
  for key, value in pairs(model) do
    local kind = type(value)
    if kind == "number" or kind == "string" or kind == "boolean" then described[key] = value
    elseif kind == "table" and getmetatable(value) == nil and type(value[1]) == "number" then
      described[key] = { unpack(value) }
    end
  end
  return described
end

--- Everything resolved, for config.json: settings only, no models' weights, no clock.
function M.config(recipe, extra)
  local stages = {}
  for k, stage in ipairs(recipe.stages) do
    local losses = {}
    for j, entry in ipairs(stage.losses) do
      losses[j] = { name = entry.name, weight = entry.weight, kind = entry.loss.kind, settings = entry.loss.settings }
    end
    local signals = {}
    for j, signal in ipairs(stage.signals) do
      signals[j] = { name = signal.name, kind = signal.kind, settings = signal.settings }
    end
    stages[k] = { name = stage.name, finish = stage.finish.text, losses = losses,
      signals = signals[1] and signals or nil }
  end
  local config = {
    name = recipe.name, seed = recipe.seed, precision = recipe.precision, batch = recipe.batch, micro = recipe.micro,
    optim = recipe.optim, ema = recipe.ema, every = recipe.every, sample = recipe.sample, stages = stages,
    student = describe(recipe.student), teacher = describe(recipe:teacher_model()), data = describe(recipe.data),
    cache_teacher = recipe.cache_teacher or nil, tf32 = recipe.tf32 or nil,
  }
  for key, value in pairs(extra or {}) do config[key] = value end
  return config
end

--- Is a loss trained in a stage from the given one on?
local function used_from(recipe, index, loss)
  for k = index, #recipe.stages do
    for _, entry in ipairs(recipe.stages[k].losses) do
      if entry.name == loss then return true end
    end
  end
  return false
end

--- A checkpoint belongs to a recipe if everything agrees that decides what a step computes.
local function check_same(path, state, recipe)
  local function same(what, format, theirs, ours)
    if theirs ~= ours then
      error(("%s was trained with %s " .. format .. ", not " .. format):format(path, what, theirs, ours), 0)
    end
  end
  same("seed", "%d", state.seed, recipe.seed)
  same("batch", "%d", state.batch, recipe.batch)
  same("precision", "%s", state.precision, recipe.precision)
end

--- The stage of a checkpoint in this recipe.
local function stage_of(path, state, recipe)
  local names = {}
  for _, stage in ipairs(recipe.stages) do
    if stage.name == state.stage_name then return stage end
    names[#names + 1] = stage.name
  end
  error(("%s is in stage '%s'; the recipe has %s"):format(path, state.stage_name, table.concat(names, ", ")), 0)
end

--- Drops what the log of the run in `source` says about steps after the one that this run goes on from: they are done
--- again, as are the readings that a new policy asks for. Changes made by hand stay where they will be made again: in
--- the same run.
local function rewind_log(run, source)
  local asked, kept = {}, {}
  for _, signal in ipairs(run.ask_now and run:signals_due() or {}) do asked[signal.name] = true end
  local function tell(message) run.progress:line("%s", message) end
  for _, event in ipairs(Events.read(source, tell)) do
    local stays = (event.step or 0) <= run.step or (event.event == "change" and source == run.folder)
    local again = event.event == "signal" and event.step == run.step and asked[event.name]
    if stays and not again and (event.event ~= "end" or run.finished) then
      kept[#kept + 1] = json.encode(event) .. "\n"
    end
  end
  files.write(run.folder .. "/events.jsonl", table.concat(kept))
end

--- Takes over a checkpoint: state, tensors, and the place in the data. Returns what the log says of it.
local function load_checkpoint(run, state, file, path)
  local recipe, progress = run.recipe, run.progress
  check_same(path, state, recipe)
  local stage = stage_of(path, state, recipe)
  local groups = {}
  for _, group in ipairs(run.groups) do
    if not group.loss or used_from(recipe, stage.index, group.loss) then groups[#groups + 1] = group end
  end
  checkpoint.load_groups(file, groups)
  choices.take(state.choices)
  run:restore(state, stage)
  run.loader:seek(state.step)
  local isa, threads = ffi.string(C.pg_cpu_isa()), C.pg_threads()
  local here = run.device ~= "cpu" and device.description(run.device) or nil
  if here ~= state.device then
    progress:line("note: the checkpoint was made on %s, this is %s: results will differ in rounding",
      state.device or "a processor", here or "a processor")
  elseif isa ~= state.isa then
    progress:line("note: the checkpoint was made with %s, this machine runs %s: results will differ in rounding",
      state.isa, isa)
  end
  return { event = "resume", step = run.step, stage = run.stage.name, isa = isa, threads = threads }
end

--- Continues from the newest checkpoint that can be read; those that can't are set aside.
local function restore(run)
  local state, file, path = checkpoint.open(run.folder, function(damaged, message)
    run.progress:line("note: a checkpoint is damaged and set aside as %s.damaged: %s", damaged, message)
    files.rename(damaged, damaged .. ".damaged")
  end)
  local event = load_checkpoint(run, state, file, path)
  rewind_log(run, run.folder)
  return event
end

--- An error where a new run would write over an old one.
function M.check(path, resume)
  if path and not resume and #checkpoint.list(path) > 0 then
    error(("%s already holds a run: continue it with --resume, or choose another folder with --runs"):format(path), 0)
  end
end

--- Holds the run's folder against other trainers, or waits for one where `options.wait` says so. False: that was
--- interrupted.
local function take_folder(run, options)
  local path, holder = run.folder .. "/lock", 0
  local function attempt()
    run.lock, holder = files.lock(path)
    return run.lock
  end
  if options.wait then
    return turn.wait(run, ("another process trains in %s: waiting for it"):format(run.folder), attempt) ~= nil
  end
  if attempt() then return true end
  error(("%s: %s trains in this folder; wait for its end, stop it, or choose another folder with --name or "
    .. "--runs"):format(
    run.folder, holder > 0 and ("process %d"):format(holder) or "another process"), 0)
end

--- Writes what a new run's folder holds from its beginning.
local function describe_run(run, options)
  if options.recipe_path then files.write(run.folder .. "/recipe.lua", files.read(options.recipe_path)) end
  files.write(run.folder .. "/config.json",
    json.encode(M.config(run.recipe, { options = options.recipe_options })) .. "\n")
end

--- Begins a new run in a folder; returns the first event.
local function begin(run, options)
  files.remove(run.folder .. "/events.jsonl")
  describe_run(run, options)
  return { event = "start", step = 0, recipe = run.recipe.name, seed = run.recipe.seed,
           isa = ffi.string(C.pg_cpu_isa()), threads = C.pg_threads(), version = ffi.string(C.pg_version()) }
end

--- Begins a run where another one stood: at its newest checkpoint, or at the given one. The log up to there comes
--- along.
local function fork(run, options)
  local state, file, path = checkpoint.open(options.from, function(damaged, message)
    run.progress:line("note: %s is damaged: %s", damaged, message)
  end)
  local event = load_checkpoint(run, state, file, path)
  local source = path:match "^(.*)/checkpoints/[^/]+$"
  files.remove(run.folder .. "/events.jsonl")
  describe_run(run, options)
  if source and files.exists(source .. "/events.jsonl") then rewind_log(run, source) end
  event.event, event.from = "fork", path
  return event
end

--- Makes or finds the run's folder and holds it. Returns the function that logs an event, and how the run goes on from
--- a checkpoint: "resumed", "forked", or false. Without a folder, nothing is written. Nil: interrupted while it was
--- another's.
function M.prepare(run, options)
  if not run.folder then return function() end, false end
  files.make_folder(run.folder)
  if not take_folder(run, options) then return nil end
  M.check(run.folder, options.resume)
  local goes_on, first = false
  if #checkpoint.list(run.folder) > 0 then
    files.sweep(run.folder .. "/checkpoints")
    goes_on, first = "resumed", restore(run)
  elseif options.from then goes_on, first = "forked", fork(run, options)
  else first = begin(run, options) end
  if goes_on ~= "forked" then run.saved = run.step end -- the step whose checkpoint the folder has
  local events = Events.open(run.folder)
  run.events = events
  function run.log(event) events:write(event) end
  run.log(first)
  return run.log, goes_on
end

M.used_from = used_from
return M
