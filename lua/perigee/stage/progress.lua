--- How far a stage's alignment has come, over random training images at times drawn as in training: what each of its
--- alignment losses says of itself, such as the mean cosine to the teacher. A program of forward passes alone.
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local stage_program = require "perigee.stage.program"
local tensor = core.tensor

local M = {}

---@class perigee.ProgressProbe
local Probe = {}
Probe.__index = Probe

--- An error where a stage aligns nothing.
function M.check(what, stage)
  for _, entry in ipairs(stage.losses) do
    if entry.loss.needs_teacher then return end
  end
  core_ffi.fail("%s: the stage '%s' has no alignment loss", what, stage.name)
end

--- The program, planned, and its outputs: { loss =, part = } by name. Of a run this reads recipe, stage, micro, trace
--- and device.
local function planned(run)
  local trace = stage_program.trace(run.recipe, run.stage,
    { batch = run.micro, fixed_noise = run.trace.fixed_noise, drop_labels = false })
  local outputs, places = {}, {}
  trace.program:trace(function()
    for _, entry in ipairs(run.stage.losses) do
      local loss, value = entry.loss, trace.losses[entry.name]
      local parts = loss.needs_teacher and (loss.progress and loss:progress(trace.context, value) or { loss = value })
      for part, number in pairs(parts or {}) do
        local name = entry.name .. " " .. part
        outputs[#outputs + 1] = { name = name, value = number:to(value.dtype):reshape {} }
        places[name] = { loss = entry.name, part = part }
      end
    end
  end)
  table.sort(outputs, function(a, b) return a.name < b.name end)
  return core.plan.build(trace.program, outputs, { device = run.device }), places
end

--- The cost of one batch of `micro` images.
---@return { bytes: number, flops: number, calls: table[] }
function M.price(run)
  local plan = planned(run)
  return { bytes = plan.arena_bytes, flops = plan:cost().flops, calls = plan.calls }
end

---@return perigee.ProgressProbe
function M.build(run)
  local plan, places = planned(run)
  return setmetatable({ executable = core.executable.new(plan, { purpose = "signal" }), places = places }, Probe)
end

function Probe:free() self.executable:free() end

--- Means over so many batches of random training images: by loss, { part = number }.
---@param batches integer
---@return table<string, table<string, number>>
function Probe:measure(run, batches)
  local values, loader = {}, run:probe_loader(run.micro)
  local fine, message = pcall(tensor.tidy, function()
    for number = 1, batches do
      local inputs = run:bind_weights { state = run.random_state }
      run:set_random_state(run.step, (number - 1) * run.micro)
      for name, t in pairs(loader:next()) do inputs[name] = t end
      for name, t in pairs(self.executable:run(inputs)) do
        local place = self.places[name]
        values[place.loss] = values[place.loss] or {}
        values[place.loss][place.part] = (values[place.loss][place.part] or 0) + t:item() / batches
      end
    end
  end)
  loader:close()
  if not fine then error(message, 0) end
  return values
end

return M
