--- Where a step's time goes: whole steps timed, and one clock around every call of a stage's programs.
local core_ffi = require "perigee.core.ffi"
local Run = require "perigee.train.run"
local storage = require("perigee.core.program").storage
local train = require "perigee.train"
local whole_file = require "perigee.base.whole_file"

local C = core_ffi.C
local M = {}

-- ---- runs to be measured ----------------------------------------------------------------------------------------

--- A run of a recipe at the beginning of a stage (by number), its programs built. `synthetic`: random numbers take the
--- place of the data set's files and of the teacher's weights.
---@param options? { device?: string, synthetic?: boolean, stage?: integer, trace?: table }
---@return perigee.Run
function M.open(recipe, options)
  options = options or {}
  if options.synthetic then
    recipe.data.find = require("perigee.data.synthetic").find
    if recipe.cache_teacher then
      error("random data have no cached teacher: set cache_teacher = false, or provide the files", 0)
    end
  end
  local run = Run.new(recipe, { device = options.device, trace = options.trace, train = train.train })
  for _, entry in ipairs(recipe.teachers) do
    if options.synthetic or not entry.model.weights and entry.model == entry.source then
      run.teacher:materialise_untrained(entry)
    end
  end
  if not run:enter_stage(options.stage or 1) then core_ffi.fail "interrupted while the teacher was being trained" end
  return run
end

--- Seconds of each of `count` whole steps: batch, gradients, update. On a device with a queue a step is timed from when
--- the one before the last was done, so the list is to be taken as a whole, between two calls of `device.synchronise`.
---@return number[]
function M.seconds(run, count)
  local list = {}
  for k = 1, count do
    local start = C.pg_clock_seconds()
    run:advance()
    list[k] = C.pg_clock_seconds() - start
  end
  return list
end

--- The value below which a share of a list's numbers lies (0.5: the median).
---@param list number[]
---@param share number
function M.quantile(list, share)
  local sorted = { unpack(list) }
  table.sort(sorted)
  local place = 1 + (#sorted - 1) * share
  local low = math.floor(place)
  return sorted[low] + (place - low) * ((sorted[low + 1] or sorted[low]) - sorted[low])
end

-- ---- memory of the process --------------------------------------------------------------------------------------

--- Lets peaks be measured from now on, on a device and of the process. Where the kernel does not allow it for the
--- process, its peak is since its start.
---@param device? string
function M.reset_peaks(device)
  collectgarbage()
  C.pg_memory_reset_peak(core_ffi.device_code[device or "cpu"])
  local file = io.open("/proc/self/clear_refs", "w")
  if file then
    file:write "5\n" -- resets VmHWM
    file:close()
  end
end

--- The most bytes of tensors held on a device, and of the process resident in memory.
---@param device? string
function M.peaks(device)
  local kilobytes = tonumber((whole_file.read "/proc/self/status" or ""):match "VmHWM:%s*(%d+)")
  return tonumber(C.pg_memory_peak(core_ffi.device_code[device or "cpu"], -1)), kilobytes and kilobytes * 1024
end

-- ---- what a call belongs to -------------------------------------------------------------------------------------

--- Tensors of a module, as a set.
local function tensors_of(module, set)
  for _, list in ipairs { module:named_parameters(), module:named_buffers() } do
    for _, entry in ipairs(list) do set[entry.tensor] = true end
  end
  return set
end

local function reads(call, test)
  for _, v in ipairs(call.node.inputs) do
    if v and test((storage(v))) then return true end
  end
  return false
end

--- The part of a step that each call of a plan belongs to, by position: "teacher" what only the teacher's features
--- need, "projector" what reads the weights of a loss's modules or writes their gradients, "alignment" the ops that
--- compare with the teacher, "student" the rest (with the attention's backward pass that an alignment was fused into).
---@return string[]
function M.parts(plan, recipe)
  local teacher, projector, of_gradient = {}, {}, {}
  for _, entry in ipairs(recipe.teachers) do tensors_of(entry.model, teacher) end
  for _, modules in pairs(recipe:loss_modules()) do
    for _, module in pairs(modules) do tensors_of(module, projector) end
  end
  for _, slot in ipairs(plan.slots) do
    if slot.kind == "output" and slot.name:match "^gradient losses%." then of_gradient[storage(slot.value)] = true end
  end
  local parts, made_by, readers = {}, {}, {}
  for k, call in ipairs(plan.calls) do
    for _, v in ipairs(call.node.inputs) do
      if v then
        local base = storage(v)
        readers[base] = readers[base] or {}
        table.insert(readers[base], k)
      end
    end
    local part = "student"
    if call.node.definition.part then part = call.node.definition.part
    elseif reads(call, function(v) return projector[v.tensor] end) then part = "projector"
    elseif reads(call, function(v) return teacher[v.tensor]
      or parts[made_by[v]] == "teacher" end) then part = "teacher" end
    for _, v in ipairs(call.node.outputs) do
      made_by[v] = k
      if of_gradient[v] then part = "projector" end
    end
    parts[k] = part
  end
  for k = #plan.calls, 1, -1 do -- what is made for the teacher alone, its pictures, is the teacher's too
    local mine, count = parts[k] == "student", 0
    for _, v in ipairs(plan.calls[k].node.outputs) do
      for _, reader in ipairs(readers[v] or {}) do
        count = count + 1
        mine = mine and parts[reader] == "teacher"
      end
    end
    if mine and count > 0 then parts[k] = "teacher" end
  end
  return parts
end

--- A key that two calls share if they do the same work: op, shapes, attributes.
local function signature(call)
  local text = { call.node.definition.name }
  for _, v in ipairs(call.values) do text[#text + 1] = v and core_ffi.shape_text(v.shape) .. v.dtype or "-" end
  for _, list in ipairs { call.node.definition.ints, call.node.definition.floats } do
    for _, key in ipairs(list) do text[#text + 1] = tostring(call.node.attributes[key]) end
  end
  return table.concat(text, " ")
end

-- ---- profiles ---------------------------------------------------------------------------------------------------

--- One step of a run with a clock around every call: seconds by call of its plans, those of all pieces added up.
local function timed(run, batch)
  local seconds = {}
  run:queue_step(batch, function(executable, inputs)
    for _, row in ipairs(executable:profile(inputs)) do seconds[row.call] = (seconds[row.call] or 0) + row.seconds end
  end)
  run:collect(0)
  return seconds
end

--- A row for each call of the plans that an executable consists of, in order; the time is the samples' median.
local function rows_of(executable, samples, part_of)
  local rows, by_call = {}, {}
  for _, call in ipairs(executable.calls) do
    local row = by_call[call]
    if not row then
      local column = {}
      for s, sample in ipairs(samples) do column[s] = sample[call] end
      row = { op = call.node.definition.name, part = part_of[call] or "update",
              seconds = M.quantile(column, 0.5), flops = 0, bytes = 0, signature = signature(call), call = call }
      by_call[call], rows[#rows + 1] = row, row
    end
    row.flops, row.bytes = row.flops + call.flops, row.bytes + call.bytes
  end
  return rows
end

---@class perigee.ProfileRow
---@field op string
---@field part "student"|"teacher"|"projector"|"alignment"|"update"
---@field seconds number   of all the step's pieces; the median over the steps
---@field flops number
---@field bytes number
---@field signature string
---@field call table       of the plan

--- Profiles `count` steps: a row for each call of the step's programs, by the device's own clock, and the seconds that
--- the loop waited for a batch.
---@return perigee.ProfileRow[] rows
---@return number loader
function M.profile(run, count)
  local samples, waits, part_of = {}, {}, {}
  run:collect(0)
  for k = 1, count do
    local start = C.pg_clock_seconds()
    local batch = run:batch()
    waits[k] = C.pg_clock_seconds() - start
    samples[k] = timed(run, batch)
  end
  local parts = M.parts(run.plan, run.recipe)
  for k, call in ipairs(run.plan.calls) do part_of[call] = parts[k] end
  return rows_of(run.train_step.executable, samples, part_of), M.quantile(waits, 0.5)
end

--- Seconds that aligning adds to a step beyond the teacher and the projector: of the calls that the profile of a stage
--- without teacher does not have, less those that only it has.
---@param aligned perigee.ProfileRow[]
---@param free perigee.ProfileRow[]
function M.alignment_seconds(aligned, free)
  local count, time, calls = {}, {}, {}
  local function add(rows, sign)
    for _, row in ipairs(rows) do
      if row.part ~= "teacher" and row.part ~= "projector" and row.part ~= "update" then
        local s = row.signature
        count[s] = (count[s] or 0) + sign
        time[s], calls[s] = (time[s] or 0) + row.seconds, (calls[s] or 0) + 1
      end
    end
  end
  add(aligned, 1)
  add(free, -1)
  local total = 0
  for s, n in pairs(count) do total = total + n * time[s] / calls[s] end
  return total
end

return M
