--- Policies asked over a recorded run: when would this one have ended the stage? A policy reads nothing but events, so
--- the answer is the one that it would have given in the run, as long as the log has the signals that it reads.
local policy = require "perigee.record.policy"
local stops = require "perigee.stops"

local M = {}

---@class perigee.ReplayAnswer
---@field step? integer    steps done when it would have ended the stage; nil: not while the stage was recorded
---@field reason? string
---@field last integer     the last recorded step of the stage
---@field missing integer  readings that were due and are not in the log
---@field means string[]   losses that were read from `step` events, since no signal of theirs is in the log

-- ---- the recorded values ----------------------------------------------------------------------------------------

local function some(steps)
  table.sort(steps)
  local shown = {}
  for k = 1, math.min(3, #steps) do shown[k] = tostring(steps[k]) end
  if #steps > 3 then shown[4] = ("... %d"):format(steps[#steps]) end
  return table.concat(shown, ", ")
end

local function keys_within(map, stage, last)
  local list = {}
  for step in pairs(map) do
    if step > stage.from and step <= last then list[#list + 1] = step end
  end
  return list
end

--- An error where the recorded signal of that name was measured with other settings. When it was measured may differ.
local function expect_same(recorded, stage, signal)
  local read = signal:named_settings()
  for name, value in pairs(stage.signals[signal.name] or {}) do
    local a, b = policy.write(value), policy.write(read[tostring(name)])
    if a ~= b and name ~= "from" and name ~= "every" then
      error(("%s: signal '%s' was recorded with %s = %s; the policy reads it with %s"):format(recorded.label,
        signal.name, name, a, b), 0)
    end
  end
end

--- The values of a signal by step, and whether they are those of `step` events. An error where there is none at any
--- step at which the signal is due.
local function values_of(recorded, stage, signal, last)
  expect_same(recorded, stage, signal)
  local values, means = recorded.signals[signal.name], false
  if not values and signal.kind == "loss" then values, means = recorded.losses[signal.name], true end
  if not values and signal.of_evaluations then
    values = {}
    for step = stage.from + 1, #recorded.evaluations > 0 and last or 0 do
      if signal:due(step) then values[step] = signal:of_evaluations(recorded.evaluations, step) end
    end
  end
  local found = keys_within(values or {}, stage, last)
  for _, step in ipairs(found) do
    if signal:due(step) then return values, means end
  end
  local where = ("%s, stage %s"):format(recorded.label, stage.name)
  if #found > 0 then
    error(("%s: signal '%s' is recorded at steps %s, never when the policy reads it (from step %d, every %d)"):format(
      where, signal.name, some(found), signal.settings.from or 0, signal.settings.every or 1), 0)
  end
  error(("%s: the run did not record signal '%s', which the policy reads; to record it, give the stage signals = { "
    .. "%s }"):format(where, signal.name, policy.write(signal)), 0)
end

-- ---- asking -----------------------------------------------------------------------------------------------------

--- Asks a policy after every recorded step of a stage, from the stage's beginning.
---@param recorded perigee.Recorded
---@param stage perigee.ReplayedStage
---@param stop perigee.Stop
---@return perigee.ReplayAnswer
function M.ask(recorded, stage, stop)
  local last = recorded:last_of(stage)
  local answer, values = { last = last, missing = 0, means = {} }, {}
  for _, signal in ipairs(stop.needs) do
    local means
    values[signal.name], means = values_of(recorded, stage, signal, last)
    if means then answer.means[#answer.means + 1] = signal.name end
  end
  local state = stop:initial()
  for step = stage.from + 1, last do
    local event = stops.event({ step = step, stage = stage.name, stage_steps = step - stage.from }, stop.needs)
    for _, signal in ipairs(stop.needs) do
      if signal:due(step) then
        local value = values[signal.name][step]
        if value == nil then answer.missing = answer.missing + 1 end
        event[signal.name] = value
      end
    end
    local finished, reason
    finished, state, reason = stop:decide(event, state)
    if finished then
      answer.step, answer.reason = step, reason or stop.text
      return answer
    end
  end
  return answer
end

return M
