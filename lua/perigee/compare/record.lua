--- A recorded run as curves: every number in its events under a name (record/numbers.lua), its stages, its
--- configuration. A run that is still going reads like one that has ended; a last line cut short is left out.
local config = require "perigee.record.config"
local Events = require "perigee.record.events"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local numbers = require "perigee.record.numbers"

local M = {}

---@class perigee.Series
---@field name string
---@field steps number[]   rising
---@field values number[]

---@class perigee.RecordedStage
---@field name string
---@field from integer     step at which it begins
---@field to? integer      step at which it ended
---@field reason? string

---@class perigee.RecordedChange
---@field step integer      after which it was made
---@field name string       of the setting, as in config.json
---@field before string
---@field after string      "": it is not a setting, but was done
---@field how "by hand"|"at a resume"

---@class perigee.Record
---@field label string                          what a legend calls it
---@field path string
---@field config table
---@field series table<string, perigee.Series>
---@field parts table<string, string[]>         a list's name -> what each of its elements is called
---@field breaks table<string, table<number, boolean>>  a series' steps before which something is missing
---@field stages perigee.RecordedStage[]
---@field changes perigee.RecordedChange[]
---@field last_step integer
---@field ended? string                         the reason of its end
local Record = {}
Record.__index = Record

local function add_number(record, name, step, number)
  local series = record.series[name]
  if not series then
    series = { name = name, steps = {}, values = {} }
    record.series[name] = series
  end
  series.steps[#series.steps + 1], series.values[#series.values + 1] = step, number
end

local function take(record, event)
  numbers.each(event, function(name, number, list, place, called)
    if list then
      record.parts[list] = record.parts[list] or {}
      record.parts[list][place] = called
    end
    if number then add_number(record, name, event.step, number) end
  end)
end

local function take_stage(record, event)
  local before = record.stages[#record.stages]
  if event.event == "stage" then
    if before then before.to, before.reason = event.step, event.reason end
    record.stages[#record.stages + 1] = { name = event.stage, from = event.step }
  elseif event.event == "end" then
    record.ended = event.reason
    if before then before.to, before.reason = event.step, event.reason end
  end
end

--- A value of a changed setting; of a tensor its event holds a summary and a file.
local function value_text(value)
  if value == nil or value == json.null then return "-" end
  if type(value) == "number" then return ("%.9g"):format(value) end
  if type(value) == "table" and type(value.shape) == "table" then return "its values" end
  return type(value) == "table" and json.encode(value) or tostring(value)
end

--- Changes made by hand, each once though a resumed run makes them again, and settings changed between two calls.
local function take_changes(record, event)
  local list = record.changes
  if event.event == "change" then
    for _, change in ipairs(list) do
      if change.number ~= nil and change.number == event.number then return end
    end
    local done = event.after == true and event.path == "finish_stage"
    local name = tostring(event.path):gsub("^stage%.", ("stages.%s."):format(tostring(event.stage)))
    list[#list + 1] = { step = event.step, name = name, how = "by hand", number = event.number,
      before = value_text(event.before), after = done and "" or value_text(event.after) }
  elseif event.event == "resume" and type(event.changed) == "table" then
    for _, row in ipairs(event.changed) do
      if type(row) == "table" and row.name ~= nil then
        list[#list + 1] = { step = event.step, name = tostring(row.name), how = "at a resume",
          before = value_text(row.before), after = value_text(row.after) }
      end
    end
  end
end

-- ---- gaps -------------------------------------------------------------------------------------------------------

local FAR = 2 -- times the longer of its neighbours: such an interval is a gap

--- Where a series without a word of what its values span has gaps: a signal that was off for a while, and was read
--- regularly before or after it.
local function find_gaps(steps)
  local breaks = {}
  for k = 2, #steps do
    local here, near = steps[k] - steps[k - 1], 0
    if k > 2 then near = math.max(near, steps[k - 1] - steps[k - 2]) end
    if k < #steps then near = math.max(near, steps[k + 1] - steps[k]) end
    if near > 0 and here > FAR * near then breaks[steps[k]] = true end
  end
  return breaks
end

--- Where the lines of a record's series are broken. A `step` event says how many steps its means are over (older logs
--- do not); signals are read at a cadence; other events come when they come.
local function mark_gaps(record, spans)
  for name, series in pairs(record.series) do
    local breaks = {}
    if name:match "^signal%." then breaks = find_gaps(series.steps)
    elseif name:match "^loss%." or name:match "^step%." then
      local told = #series.steps > 0 and spans[series.steps[#series.steps]] ~= nil
      if not told then breaks = find_gaps(series.steps) end
      for k = 2, told and #series.steps or 0 do
        local step, span = series.steps[k], spans[series.steps[k]]
        if span and step - span > series.steps[k - 1] then breaks[step] = true end
      end
    end
    record.breaks[name] = breaks
  end
end

--- Events in the order of their steps: changes made by hand stay in the log of a run that went back to a checkpoint.
local function in_order(events)
  local step = 0
  for k, event in ipairs(events) do
    if type(event.step) ~= "number" then event.step = step end
    step, event.order = event.step, k
  end
  table.sort(events, function(a, b)
    if a.step ~= b.step then return a.step < b.step end
    return a.order < b.order
  end)
  for _, event in ipairs(events) do event.order = nil end
  return events
end

--- Reads a run's folder.
---@param path string
---@param label? string
---@param tell? fun(message: string)   called with what is wrong in its log
---@return perigee.Record
function M.read(path, label, tell)
  path = path:gsub("(.)/+$", "%1")
  if not files.exists(path .. "/events.jsonl") then
    error(("%s is not a run: events.jsonl is missing"):format(path), 0)
  end
  local record = setmetatable({
    label = label or path:match "[^/]+$" or path, path = path, config = config.read(path),
    series = {}, parts = {}, breaks = {}, stages = {}, changes = {}, last_step = 0,
  }, Record)
  record.config.command = nil -- what it decides is there too
  local spans = {} -- of steps that a `step` event's means are over, by its step
  for _, event in ipairs(in_order(Events.read(path, tell))) do
    take(record, event)
    take_stage(record, event)
    take_changes(record, event)
    if event.event == "step" then spans[event.step] = event.steps end
    if event.event ~= "change" then record.last_step = math.max(record.last_step, event.step) end
  end
  mark_gaps(record, spans)
  return record
end

--- Images and seconds from one step to another, by the rates that the log holds.
---@return number images, number seconds
function Record:work(from, to)
  local rates, batch = self.series["step.images_per_second"], self.config.batch or 1
  local images, seconds, before = 0, 0, 0
  for k, step in ipairs(rates and rates.steps or {}) do
    local count = (math.min(step, to) - math.max(before, from)) * batch
    if count > 0 and rates.values[k] > 0 then images, seconds = images + count, seconds + count / rates.values[k] end
    before = step
  end
  return images, seconds
end

--- A function that turns a step into what the x axis counts.
---@param unit "step"|"images"|"seconds"
---@return fun(step: number): number
function Record:axis(unit)
  if unit == "step" then return function(step) return step end end
  if unit == "images" then return function(step) return step * (self.config.batch or 1) end end
  local rates, batch = self.series["step.images_per_second"], self.config.batch or 1
  local steps, seconds = { 0 }, { 0 }
  for k, step in ipairs(rates and rates.steps or {}) do
    if rates.values[k] > 0 then
      seconds[#seconds + 1] = seconds[#seconds] + (step - steps[#steps]) * batch / rates.values[k]
      steps[#steps + 1] = step
    end
  end
  local k = 2 -- steps are asked for in their order, mostly
  return function(step)
    if k > #steps or step < steps[k - 1] then k = 2 end
    while k <= #steps and step > steps[k] do k = k + 1 end
    if k > #steps then return seconds[#seconds] end
    return seconds[k - 1] + (seconds[k] - seconds[k - 1]) * (step - steps[k - 1]) / (steps[k] - steps[k - 1])
  end
end

return M
