--- Checkpoints: checkpoints/step-NNNNNNN.safetensors, written to a temporary file, synced and renamed. They hold masters,
--- moving averages and moments, and in their metadata the step, the stage and the policy's state; no clock, no path, no
--- command line, so that equal runs write equal files.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local lfs = require "lfs"
local safetensors = require "perigee.io.safetensors"

local M = { format = "perigee-checkpoint" }

function M.path(folder, step) return ("%s/checkpoints/step-%07d.safetensors"):format(folder, step) end

--- Steps of the checkpoints in a run's folder, in order.
function M.list(folder)
  local steps = {}
  if not lfs.attributes(folder .. "/checkpoints", "mode") then return steps end
  for name in lfs.dir(folder .. "/checkpoints") do
    local step = name:match "^step%-(%d+)%.safetensors$"
    if step then steps[#steps + 1] = tonumber(step) end
  end
  table.sort(steps)
  return steps
end

--- Writes the run's state, then removes all but the newest `keep`.
function M.save(run)
  lfs.mkdir(run.folder .. "/checkpoints")
  local tensors = {}
  for _, group in ipairs(run.groups) do
    for name, t in pairs(group:state()) do tensors[name] = t end
  end
  local state = {
    format = M.format, recipe = run.recipe.name, seed = run.recipe.seed, step = run.step, stage = run.stage.index,
    stage_name = run.stage.name, policy = run.policy_state, precision = run.recipe.precision, batch = run.recipe.batch,
    isa = ffi.string(core.C.pg_cpu_isa()), threads = core.C.pg_threads(), settings = run:settings(), finished = run.finished or false,
  }
  local path = M.path(run.folder, run.step)
  safetensors.save(path, tensors, { perigee = json.encode(state) })
  local steps = M.list(run.folder)
  for k = 1, #steps - run.recipe.keep do os.remove(M.path(run.folder, steps[k])) end
  return path
end

--- A checkpoint's metadata, and the open file. `path` may be a run's folder: its newest checkpoint that can be read.
function M.open(path)
  if lfs.attributes(path, "mode") == "directory" then
    local steps = M.list(path)
    if #steps == 0 then error(("%s holds no checkpoint"):format(path), 0) end
    path = M.path(path, steps[#steps])
  end
  local file = safetensors.open(path)
  local text = file.metadata and file.metadata.perigee
  local fine, state = pcall(json.decode, text or "")
  if not fine or type(state) ~= "table" or state.format ~= M.format then
    error(("%s is no checkpoint of a Perigee run"):format(path), 0)
  end
  return state, file, path
end

--- Reads a group's tensors into place; errors name the tensor that is missing or has another shape.
function M.load_group(file, group)
  local core_layout = require "perigee.core.layout"
  for name, t in pairs(group:state()) do
    local entry = file.tensors[name]
    if not entry then error(("%s has no tensor '%s': it belongs to another model"):format(file.path, name), 0) end
    if not core_layout.same_shape(entry.shape, t.shape) then
      error(("%s: '%s' is %s, this model's is %s"):format(file.path, name, core.shape_text(entry.shape), core.shape_text(t.shape)), 0)
    end
    file:read(name, t)
  end
  group:refresh()
end

return M
