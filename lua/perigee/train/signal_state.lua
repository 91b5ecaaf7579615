--- What signals keep from reading to reading: running sums of a step's samples, running means of gradients. A state is
--- a table; its tensors stand on its first level. Checkpoints hold both, so that a run that continues measures what it
--- would have measured. They don't hold its field `held`, a thing of this process with a method `free`.
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

local function name_of(signal, field) return ("signal.%s.%s"):format(signal, field) end

--- States without their tensors, with what tells a signal from another of its name; nil where there are none.
---@param states table<string, table>
---@param measured perigee.Signal[]
---@return table<string, { key: string, state: table }>?
function M.plain(states, measured)
  local plain = {}
  for _, signal in ipairs(measured) do
    if states[signal.name] and not signal.of_process then
      local kept = {}
      for field, value in pairs(states[signal.name]) do
        if not tensor.is_tensor(value) and field ~= "held" then kept[field] = value end
      end
      if next(kept) then plain[signal.name] = { key = signal.key, state = kept } end
    end
  end
  return next(plain) and plain or nil
end

--- Their tensors by checkpoint name.
---@param states table<string, table>
---@return table<string, perigee.Tensor>
function M.tensors(states)
  local list = {}
  for signal, state in pairs(states) do
    for field, value in pairs(state) do
      if tensor.is_tensor(value) then list[name_of(signal, field)] = value end
    end
  end
  return list
end

--- The states of which `plain` and `tensors` were made. A signal that now measures something else begins afresh.
---@param plain? table<string, { key: string, state: table }>
---@param tensors table<string, perigee.Tensor>
---@param measured perigee.Signal[]
---@return table<string, table>
function M.read(plain, tensors, measured)
  local states = {}
  for _, signal in ipairs(measured) do
    local kept = plain and plain[signal.name]
    if kept and kept.key == signal.key then
      local state = tables.copy(kept.state)
      for name, t in pairs(tensors) do
        local field = name:sub(1, #signal.name + 8) == name_of(signal.name, "") and name:sub(#signal.name + 9)
        if field then state[field], tensors[name] = t, nil end
      end
      states[signal.name] = state
    end
  end
  for _, t in pairs(tensors) do t:free() end
  return states
end

local function free(state)
  for _, value in pairs(state) do
    if tensor.is_tensor(value) then value:free() end
  end
  if state.held then state.held:free() end
end

--- Gives the memory of all states back.
---@param states table<string, table>
function M.free(states)
  for _, state in pairs(states) do free(state) end
end

--- Drops the states of signals that are not measured any more, or of which others of their name took the place.
---@param states table<string, table>
---@param before perigee.Signal[]
---@param after perigee.Signal[]
function M.drop(states, before, after)
  local keys = {}
  for _, signal in ipairs(after) do keys[signal.name] = signal.key end
  for _, signal in ipairs(before) do
    if states[signal.name] and keys[signal.name] ~= signal.key then
      free(states[signal.name])
      states[signal.name] = nil
    end
  end
end

return M
