--- A run's folder: the recipe as it was, config.json, the event log, and the way back in with --resume.
local core = require "perigee.core.ffi"
local checkpoint = require "perigee.train.checkpoint"
local Events = require "perigee.train.events"
local json = require "perigee.io.json"
local lfs = require "lfs"

local ffi = require "ffi"
local C = core.C
local M = {}

--- Bytes of tensors and arenas held now.
function M.memory() return tonumber(C.pg_memory_now(C.PG_CPU, -1)) end

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
function M.last_step(recipe)
  local function bound(stop)
    if stop.kind == "at_step" then return stop.step end
    if stop.kind == "any" then
      local least
      for _, inner in ipairs(stop.stops) do
        local n = bound(inner)
        if n and (not least or n < least) then least = n end
      end
      return least
    elseif stop.kind == "all" then
      local most
      for _, inner in ipairs(stop.stops) do
        local n = bound(inner)
        if not n then return nil end
        most = math.max(most or 0, n)
      end
      return most
    end
  end
  return bound(recipe.stages[#recipe.stages].finish)
end

--- Everything resolved, for config.json: settings only, no models' weights, no clock.
function M.config(recipe, extra)
  local stages = {}
  for k, stage in ipairs(recipe.stages) do
    local losses = {}
    for j, entry in ipairs(stage.losses) do
      losses[j] = { name = entry.name, weight = entry.weight, kind = entry.loss.kind, settings = entry.loss.settings }
    end
    stages[k] = { name = stage.name, finish = stage.finish.text, losses = losses }
  end
  local teacher = recipe:teacher_model()
  local config = {
    name = recipe.name, seed = recipe.seed, precision = recipe.precision, batch = recipe.batch, micro = recipe.micro,
    optim = recipe.optim, ema = recipe.ema, every = recipe.every, sample = recipe.sample, stages = stages,
    student = recipe.student.settings, teacher = teacher and teacher.settings, data = recipe.data.name,
  }
  for key, value in pairs(extra or {}) do config[key] = value end
  return config
end

local function write(path, text)
  local file, message = io.open(path, "w")
  if not file then error("cannot write " .. message, 0) end
  local fine, problem = file:write(text)
  if fine then fine, problem = file:close() end
  if not fine then error(("cannot write %s: %s"):format(path, tostring(problem)), 0) end
end

local function make_folder(path)
  local built = path:sub(1, 1) == "/" and "/" or ""
  for part in path:gmatch "[^/]+" do
    built = built .. part .. "/"
    if not lfs.attributes(built, "mode") then
      local fine, message = lfs.mkdir(built)
      if not fine and not lfs.attributes(built, "mode") then error(("cannot make the folder %s: %s"):format(built, message), 0) end
    end
  end
end

local function restore(run, log)
  local state, file, path = checkpoint.open(run.folder)
  local recipe = run.recipe
  if state.seed ~= recipe.seed then error(("%s was trained with seed %d, not %d"):format(path, state.seed, recipe.seed), 0) end
  if state.batch ~= recipe.batch then error(("%s was trained with batch %d, not %d"):format(path, state.batch, recipe.batch), 0) end
  if state.precision ~= recipe.precision then
    error(("%s was trained with precision %s, not %s"):format(path, state.precision, recipe.precision), 0)
  end
  if not recipe.stages[state.stage] then error(("%s is in stage %d; the recipe has %d"):format(path, state.stage, #recipe.stages), 0) end
  local used = {}
  for k = state.stage, #recipe.stages do
    for _, entry in ipairs(recipe.stages[k].losses) do used[entry.name] = true end
  end
  for _, group in ipairs(run.groups) do
    if not group.loss or used[group.loss] then checkpoint.load_group(file, group) end
  end
  file:close()
  run:restore(state)
  run.loader:seek(state.step)
  local isa, threads = ffi.string(C.pg_cpu_isa()), C.pg_threads()
  if isa ~= state.isa then
    run.progress:line("note: the checkpoint was made with %s, this machine runs %s: results will differ in rounding", state.isa, isa)
  end
  log { event = "resume", step = run.step, stage = run.stage.name, isa = isa, threads = threads }
  run.progress:line("resumed at step %d, stage %s", run.step, run.stage.name)
end

--- Makes or finds the run's folder and returns the function that logs an event. Without a folder, nothing is written.
function M.prepare(run, options)
  if not run.folder then return function() end end
  local has = #checkpoint.list(run.folder) > 0
  if has and not options.resume then
    error(("%s already holds a run: continue it with --resume, or choose another folder with --runs"):format(run.folder), 0)
  end
  make_folder(run.folder)
  if not (options.resume and has) then os.remove(run.folder .. "/events.jsonl") end
  local events = Events.open(run.folder)
  run.events = events
  local function log(event) events:write(event) end
  run.log = log
  if options.resume and has then restore(run, log)
  else
    if options.recipe_path then
      local source = io.open(options.recipe_path, "r")
      if source then
        write(run.folder .. "/recipe.lua", source:read "*a")
        source:close()
      end
    end
    write(run.folder .. "/config.json", json.encode(M.config(run.recipe, { options = options.recipe_options })) .. "\n")
    log { event = "start", step = 0, recipe = run.recipe.name, seed = run.recipe.seed, isa = ffi.string(C.pg_cpu_isa()),
          threads = C.pg_threads(), version = ffi.string(C.pg_version()) }
  end
  return log
end

M.make_folder = make_folder
return M
