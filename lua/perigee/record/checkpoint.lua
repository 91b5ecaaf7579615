--- Checkpoints: checkpoints/step-NNNNNNN.safetensors, written to a temporary file, synced and renamed. They hold
--- masters, moving averages and moments, and in their metadata the step, the stage and the policy's state; no clock, no
--- path, no command line, so that equal runs write equal files.
local ffi = require "ffi"
local choices = require "perigee.record.choices"
local core = require "perigee.core.ffi"
local device = require "perigee.core.device"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local layout = require "perigee.core.layout"
local safetensors = require "perigee.io.safetensors"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = { format = "perigee-checkpoint" }

function M.path(folder, step) return ("%s/checkpoints/step-%07d.safetensors"):format(folder, step) end

--- Steps of the checkpoints in a run's folder, in order.
function M.list(folder)
  local steps = {}
  if not files.exists(folder .. "/checkpoints") then return steps end
  for _, name in ipairs(files.list(folder .. "/checkpoints")) do
    local step = name:match "^step%-(%d+)%.safetensors$"
    if step then steps[#steps + 1] = tonumber(step) end
  end
  table.sort(steps)
  return steps
end

--- A run's state other than its tensors.
local function state_of(run)
  local recipe = run.recipe
  return {
    format = M.format, recipe = recipe.name, seed = recipe.seed, step = run.step, stage = run.stage.index,
    stage_name = run.stage.name, stage_begun = run.stage.begun, policy = run.policy_state,
    policy_text = run.stage.finish.text, undecided = run.undecided or nil,
    precision = recipe.precision, batch = recipe.batch, isa = ffi.string(core.C.pg_cpu_isa()),
    threads = core.C.pg_threads(), settings = run:settings(), recipe_settings = run:recipe_settings(),
    signals = run:kept_by_signals(), finished = run.finished, means = run.means:state(), data = recipe.data:identity(),
    device = run.device ~= "cpu" and device.description(run.device) or nil,
    choices = run.device ~= "cpu" and choices.all() or nil,
  }
end

--- Writes the run's state, then removes all but the newest `keep`.
function M.save(run)
  files.make_folder(run.folder .. "/checkpoints")
  local path = M.path(run.folder, run.step)
  local tensors = tables.merged(run:tensors(), run:tensors_of_signals())
  safetensors.save(path, tensors, { perigee = json.encode(state_of(run)) }, { sums = true })
  local steps = M.list(run.folder)
  for k = 1, #steps - run.recipe.keep do files.remove(M.path(run.folder, steps[k])) end
  return path
end

--- The metadata of an open checkpoint.
local function state_in(file)
  local fine, state = pcall(json.decode, file.metadata.perigee or "")
  if not fine or type(state) ~= "table" or state.format ~= M.format then
    error(("%s is not a Perigee checkpoint"):format(file.path), 0)
  end
  return state
end

--- Opens a checkpoint that may be damaged: nil and the message if its content is proved bad. Any other error (the
--- system could not read the file, or the file is sound and of another kind or version) says nothing about its content,
--- and is raised. `verify`: its tensors are checked too.
local function open_if_sound(path, verify)
  core.last_status = nil
  local fine, file = pcall(function()
    local opened = safetensors.open(path)
    if verify then opened:verify() end
    return opened
  end)
  if fine then return state_in(file), file end
  if core.last_status and core.last_status ~= core.C.PG_ERROR_FORMAT then error(file, 0) end
  return nil, file
end

---@class perigee.OpenOptions
---@field damaged? fun(path: string, message: string)  told of each newer checkpoint whose content is bad, and is passed
---  over; without it, such a one is an error
---@field verify? boolean  check the tensors' sums, and pass over checkpoints in which one is wrong

--- A checkpoint's metadata, the open file and its path. `path` may be a run's folder: then it is the newest checkpoint.
---@param path string
---@param options? perigee.OpenOptions
function M.open(path, options)
  options = options or {}
  if files.kind(path) ~= "directory" then
    local file = safetensors.open(path)
    return state_in(file), file, path
  end
  local steps, problem = M.list(path), nil
  for k = #steps, 1, -1 do
    local candidate = M.path(path, steps[k])
    local state, file = open_if_sound(candidate, options.verify)
    if state and problem and not options.damaged then
      error(("%s\nthe newest sound checkpoint is %s; give its path to take that one"):format(problem, candidate), 0)
    end
    if state then return state, file, candidate end
    problem = problem or file
    if options.damaged then options.damaged(candidate, file) end
  end
  error(problem or ("%s holds no checkpoint"):format(path), 0)
end

--- A digest of the tensors whose names begin with `prefix`: equal weights have equal ones, whatever file they are in.
---@param file perigee.SafetensorsFile
---@param prefix string
---@return string
function M.digest(file, prefix)
  local crc = 0
  local function add(text) crc = core.C.pg_crc32(crc, text, #text) end
  local names = tables.copy(file.names)
  table.sort(names)
  for _, name in ipairs(names) do
    if name:sub(1, #prefix) == prefix then
      local entry = file.entries[name]
      add(("%s %s %s %s\n"):format(name:sub(#prefix + 1), entry.stored, core.shape_text(entry.shape), file:sum(name)))
    end
  end
  return ("%08x"):format(crc)
end

local SIGNAL = "^signal%." -- what signals keep

--- The tensors that signals kept, by their names.
---@return table<string, perigee.Tensor>
function M.signal_tensors(file)
  local tensors = {}
  for _, name in ipairs(file.names) do
    if name:match(SIGNAL) then
      tensors[name] = tensor.empty(file.entries[name].shape, file.entries[name].dtype, { purpose = "signal" })
      file:read(name, tensors[name])
    end
  end
  return tensors
end

--- The parameter that a tensor's name says it is a moment of, or nil.
local function of_moment(name) return name:match "^optimizer%.[^.]+%.(.+)$" end

--- Reads groups' tensors into place; errors name the tensor that is missing, has another shape, or belongs to nothing.
--- Moments of parameters that have been frozen since are left out.
function M.load_groups(file, groups)
  local expected, frozen = {}, {}
  for _, group in ipairs(groups) do
    for name, t in pairs(group:state()) do expected[name] = t end
    for _, entry in ipairs(group.layout) do frozen[group.prefix .. "." .. entry.name] = entry.frozen end
  end
  local names = tables.sorted_keys(expected)
  for _, name in ipairs(names) do
    local entry, t = file.entries[name], expected[name]
    if not entry and file.entries[of_moment(name)] then
      error(("%s has no moments of '%s', which was frozen in that run: freeze it again, or begin a new run"):format(
        file.path, of_moment(name)), 0)
    end
    if not entry then error(("%s has no tensor '%s' %s: it belongs to another model"):format(file.path, name,
      core.shape_text(t.shape)), 0) end
    if not layout.same_shape(entry.shape, t.shape) or entry.dtype ~= t.dtype then
      error(("%s: '%s' is %s %s, this model's is %s %s"):format(file.path, name, entry.dtype,
        core.shape_text(entry.shape), t.dtype, core.shape_text(t.shape)), 0)
    end
  end
  for _, name in ipairs(file.names) do
    if not expected[name] and not name:match(SIGNAL) and not frozen[of_moment(name)] then
      error(("%s: tensor '%s' %s belongs to nothing in this model"):format(file.path, name,
        core.shape_text(file.entries[name].shape)), 0)
    end
  end
  for _, name in ipairs(names) do file:read(name, expected[name]) end
  for _, group in ipairs(groups) do group:refresh() end
end

return M
