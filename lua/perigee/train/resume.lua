--- How a run begins: as a new one, from its newest checkpoint (--resume), or from another run's (--from).
local ffi = require "ffi"
local checkpoint = require "perigee.record.checkpoint"
local core = require "perigee.core.ffi"
local describe = require "perigee.recipe.describe"
local device = require "perigee.core.device"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local folder = require "perigee.record.folder"
local json = require "perigee.io.json"
local settings = require "perigee.train.settings"

local C = core.C
local M = {}

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
  same("optimiser", "%s", state.settings.optim.kind, recipe.optim.kind)
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

--- The step after which a checkpoint's stage began. Checkpoints once did not say it; the log of their run does.
local function begun_at(state, log)
  if state.stage_begun then return state.stage_begun end
  local begun = state.stage == 1 and 0 or state.step
  for _, event in ipairs(log and files.exists(log .. "/events.jsonl") and Events.read(log) or {}) do
    if event.event == "stage" and event.stage == state.stage_name and event.step <= state.step then
      begun = event.step
    end
  end
  return begun
end

--- Notes a device or an instruction set other than the checkpoint's.
local function note_machine(run, state, isa)
  local here = run.device ~= "cpu" and device.description(run.device) or nil
  if here ~= state.device then
    run.progress:line("note: the checkpoint was made on %s, this is %s: results will differ in rounding",
      state.device or "a processor", here or "a processor")
  elseif isa ~= state.isa then
    run.progress:line("note: the checkpoint was made with %s, this machine runs %s: results will differ in rounding",
      state.isa, isa)
  end
end

--- Holds the data against those of a checkpoint: an error if the classes have other names or another order, for then
--- the labels mean something else. Returns a sentence where anything else differs.
local function compare_data(run, state, path)
  local before, now = state.data, run.recipe.data:identity()
  if not before then return nil end -- checkpoints once did not say it
  local function names_of(data) return data.class_names and table.concat(data.class_names, ", ") end
  local names, present = names_of(before), names_of(now)
  if names and present and names ~= present then
    error(("%s was trained with the classes %s; the data now have %s, so the labels have another meaning: restore the "
      .. "classes, or begin a new run"):format(path, names, present), 0)
  end
  if before.digest == now.digest then return nil end
  return before.count == now.count
    and ("the data are not those of the checkpoint: %d samples as before, but with other content"):format(now.count)
    or ("the data are not those of the checkpoint: %d samples then, %d now"):format(before.count, now.count)
end

--- The folder of the run to which a checkpoint belongs.
local function run_of(path) return path:match "^(.*)/checkpoints/[^/]+$" end

--- Loads a checkpoint into a run: state, tensors, and the place in the data. Returns the event for the log, and a
--- sentence if the data are other ones.
local function load_checkpoint(run, state, file, path)
  local recipe = run.recipe
  check_same(path, state, recipe)
  local other_data = compare_data(run, state, path)
  local stage = stage_of(path, state, recipe)
  state.stage_begun = begun_at(state, run_of(path))
  local groups = {}
  for _, group in ipairs(run.groups) do
    if not group.loss or describe.trains(recipe, stage.index, group.loss) then groups[#groups + 1] = group end
  end
  checkpoint.load_groups(file, groups)
  run:restore(state, stage, checkpoint.signal_tensors(file))
  local isa = ffi.string(C.pg_cpu_isa())
  note_machine(run, state, isa)
  if other_data then run.progress:line("note: %s", other_data) end
  return { event = "resume", step = run.step, stage = run.stage.name, isa = isa, threads = C.pg_threads() }, other_data
end

--- Writes the log of the run in `source` up to this run's step into this run's folder. Later steps are done again, as
--- are the readings that a new policy asks for. Changes made by hand stay if they will be made again: in the same run.
local function rewind_log(run, source)
  local asked, kept = {}, {}
  for _, signal in ipairs(run.owes_decision and run:signals_due() or {}) do asked[signal.name] = true end
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

--- The folder has no checkpoint: an error if it once had one, since a new run would take its place.
local function expect_no_loss(run)
  local checkpoints = run.folder .. "/checkpoints"
  for _, name in ipairs(files.exists(checkpoints) and files.list(checkpoints) or {}) do
    if name:match "%.damaged$" then
      error(("%s holds no usable checkpoint, only %s, which was set aside as damaged; to start again, choose another "
        .. "folder with --name or --runs, or remove this one"):format(run.folder, name), 0)
    end
  end
  local saved
  if files.exists(run.folder .. "/events.jsonl") then
    for _, event in ipairs(Events.read(run.folder)) do saved = event.event == "checkpoint" and event or saved end
  end
  if saved then
    error(("%s holds no checkpoint, but its log tells of %s (step %d): restore it, or start again in another folder "
      .. "with --name or --runs"):format(run.folder, tostring(saved.file), saved.step), 0)
  end
end

--- A new run.
local function begin(run, options)
  expect_no_loss(run)
  files.remove(run.folder .. "/events.jsonl")
  folder.describe(run.folder, run.recipe, options)
  return { event = "start", step = 0, recipe = run.recipe.name, seed = run.recipe.seed,
           isa = ffi.string(C.pg_cpu_isa()), threads = C.pg_threads(), version = ffi.string(C.pg_version()) }
end

--- Continues from the newest readable checkpoint of the folder; damaged ones are set aside.
local function continue(run, options)
  local bad = {}
  local state, file, path = checkpoint.open(run.folder, { verify = true, damaged = function(damaged, message)
    bad[#bad + 1] = { path = damaged, message = message }
  end })
  for _, damaged in ipairs(bad) do -- a sound one was found, so that these are not needed
    run.progress:line("note: a checkpoint is damaged and set aside as %s.damaged: %s", damaged.path, damaged.message)
    files.rename(damaged.path, damaged.path .. ".damaged")
  end
  local event, other_data = load_checkpoint(run, state, file, path)
  rewind_log(run, run.folder)
  local changed = folder.update(run.folder, run.recipe, options, run.step)
  for _, row in ipairs(changed) do
    run.progress:line("changed since: %s is %s, was %s", row.name, row.after, row.before)
  end
  event.changed = changed[1] and changed or nil
  return event, other_data
end

--- An error where a fork has nothing to do: the other run is finished there. Before a folder is made for it.
local function expect_unfinished(run, from)
  local state, _, path = checkpoint.open(from, { damaged = function() end }) -- fork() tells of them
  check_same(path, state, run.recipe)
  if settings.policy(state, stage_of(path, state, run.recipe)).finished then
    error(("%s: that run is finished, at step %d; give a later end to the finish of stage '%s', or begin at an earlier "
      .. "checkpoint"):format(path, state.step, state.stage_name), 0)
  end
end

--- Begins at a checkpoint of another run: its newest, or the given one. The log up to there comes along.
local function fork(run, options)
  local state, file, path = checkpoint.open(options.from, { verify = true, damaged = function(damaged, message)
    run.progress:line("note: %s is damaged: %s", damaged, message)
  end })
  local event, other_data = load_checkpoint(run, state, file, path)
  local source = run_of(path)
  files.remove(run.folder .. "/events.jsonl")
  folder.describe(run.folder, run.recipe, options)
  if source and files.exists(source .. "/events.jsonl") then rewind_log(run, source) end
  event.event, event.from = "fork", path
  return event, other_data
end

--- The choices of the checkpoint at which a run will begin: they decide how it is computed, before it is loaded. Nil
--- where it has none.
---@param options perigee.TrainOptions
function M.choices(options)
  local own = options.folder and #checkpoint.list(options.folder) > 0
  local fine, state = pcall(checkpoint.open, own and options.folder or options.from, { damaged = function() end })
  return fine and state.choices or nil -- whoever loads it says what is wrong
end

--- Brings a run without a folder to where another one stood, whose folder or checkpoint is at `path`. Returns the
--- checkpoint's path.
---@param run perigee.Run
---@param path string
---@return string
function M.take_over(run, path)
  local state, file, found = checkpoint.open(path)
  load_checkpoint(run, state, file, found)
  return found
end

--- Brings a run to the step at which it begins, and opens its log. Without a folder, nothing is read or written.
---@param run perigee.Run
---@param options perigee.TrainOptions
---@return "new"|"resumed"|"forked"|nil  nil: interrupted while another process held the folder
function M.begin(run, options)
  if not run.folder then return "new" end
  if options.from and #checkpoint.list(run.folder) == 0 then expect_unfinished(run, options.from) end
  files.make_folder(run.folder)
  if not run:hold_folder(options.wait) then return nil end
  for _, part in ipairs { "", "/checkpoints", "/changes", "/samples" } do files.sweep(run.folder .. part) end
  folder.check(run.folder, options.resume)
  run.progress:line("data: %s", run.recipe.data:summary())
  local how, event, other_data
  if #checkpoint.list(run.folder) > 0 then how, event, other_data = "resumed", continue(run, options)
  elseif options.from then how, event, other_data = "forked", fork(run, options)
  else how, event = "new", begin(run, options) end
  if how ~= "forked" then run:mark_saved() end -- a fork's first checkpoint is still to be written
  run:open_log()
  event.data = run.recipe.data:summary()
  run:log(event)
  if other_data then run:log { event = "warning", step = run.step, about = "data", message = other_data } end
  return how
end

return M
