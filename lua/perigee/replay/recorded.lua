--- A run's log as a policy may ask it: its stages, and the values of signals by step.
local config = require "perigee.record.config"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local nearest = require "perigee.base.nearest"

local M = {}

---@class perigee.ReplayedStage
---@field name string
---@field from integer     steps done when it began
---@field to? integer      steps done when it ended; nil: the run is still in it, or was left in it
---@field reason? string   why it ended
---@field signals table<string, table>  settings of its signals by name, as config.json has them

---@class perigee.Recorded
---@field label string
---@field path string
---@field stages perigee.ReplayedStage[]
---@field last integer     the last step that the log knows
---@field signals table<string, table<integer, any>>    values of signals: name -> step -> value
---@field evaluations table[]  its `evaluation` events
---@field losses table<string, table<integer, number>>  values of `step` events: name -> step -> value
local Recorded = {}
Recorded.__index = Recorded

local function put(map, name, step, value)
  map[name] = map[name] or {}
  map[name][step] = value
end

local function take(recorded, event)
  local kind, step = event.event, event.step
  if type(step) ~= "number" then return end
  if kind == "stage" or kind == "end" then
    local before = recorded.stages[#recorded.stages]
    if before then before.to, before.reason = step, event.reason end
  end
  if kind == "stage" then recorded.stages[#recorded.stages + 1] = { name = event.stage, from = step, signals = {} }
  elseif kind == "evaluation" then table.insert(recorded.evaluations, event)
  elseif kind == "signal" and event.name then put(recorded.signals, event.name, step, event.value)
  elseif kind == "step" and type(event.losses) == "table" then
    for name, value in pairs(event.losses) do put(recorded.losses, name, step, value) end
  end
  if kind ~= "change" then recorded.last = math.max(recorded.last, step) end
end

--- Reads a run's folder.
---@param path string
---@param label? string  its name in tables: the folder's
---@param tell? fun(message: string)  called with lines of the log that are left out
---@return perigee.Recorded
function M.read(path, label, tell)
  path = path:gsub("(.)/+$", "%1")
  if not files.exists(path .. "/events.jsonl") then
    error(("%s is not a run: events.jsonl is missing"):format(path), 0)
  end
  local recorded = setmetatable({ label = label or path:match "[^/]+$" or path, path = path, stages = {}, last = 0,
    signals = {}, losses = {}, evaluations = {} }, Recorded)
  for _, event in ipairs(Events.read(path, tell)) do take(recorded, event) end
  if #recorded.stages == 0 then error(("%s: the log names no stage"):format(path), 0) end
  local described_by = files.exists(path .. "/config.json") and config.read(path) or {}
  for _, described in ipairs(described_by.stages or {}) do
    for _, stage in ipairs(recorded.stages) do
      for _, signal in ipairs(stage.name == described.name and described.signals or {}) do
        stage.signals[signal.name] = signal.settings
      end
    end
  end
  return recorded
end

--- A stage by name; without one, the first.
---@param name? string
---@return perigee.ReplayedStage
function Recorded:stage(name)
  if not name then return self.stages[1] end
  local names = {}
  for k, stage in ipairs(self.stages) do
    if stage.name == name then return stage end
    names[k] = stage.name
  end
  error(("%s has no stage '%s'; it has %s%s"):format(self.label, name, table.concat(names, ", "),
    nearest.hint(name, names)), 0)
end

--- The last step of a stage that is recorded.
---@param stage perigee.ReplayedStage
---@return integer
function Recorded:last_of(stage) return stage.to or self.last end

return M
