--- Signals: quantities measured while a stage runs, each at its own cadence, written into the run's events and read by
--- policies. Those of one `family` are measured together, in one pass.
---
--- pg.signal.NAME is made of what lua/perigee/signals/NAME.lua returns: a function from options to a signal's fields.
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"

---@class perigee.signals
local M = {}

---@class perigee.Signal
---@field name string      by which an event holds its value
---@field kind string      its file: pg.signal.KIND
---@field place? string   where it was written: "recipe.lua:12"
---@field settings table   its options, with which its source and config.json name it
---@field key string       what tells it from another signal of its name
---@field due fun(self: perigee.Signal, step: integer): boolean  by default at settings.from and every settings.every
---  steps after it
---@field check fun(self: perigee.Signal, stage: table, recipe: perigee.Recipe)  an error where the stage cannot
---  measure it; nothing, by default
---@field measure fun(self: perigee.Signal, run: perigee.Run, state?: table): number|table, table?  its value, and what
---  it keeps until the next reading (`state`, nil at first): numbers, texts, tables of them, and on its first level
---  tensors, and as `held` what this process alone needs, with a method `free`; nil: what it kept before. Checkpoints
---  hold it
---@field stream? perigee.Stream  it is recorded into the step itself
---@field of_step? boolean  it is about the step just done, and can't be measured without one
---@field holds? boolean  a reading's memory stays until the stage ends
---@field of_process? boolean  what it keeps is this process's alone (a clock): no checkpoint holds it
---@field of_evaluations? fun(self: perigee.Signal, events: table[], step: integer): table  its value at a step by the
---  log's evaluations, for a replay
---@field family? string
---@field measure_family? fun(members: perigee.Signal[], run: perigee.Run): table[]  of signals that keep nothing
---@field price? fun(members: perigee.Signal[], run: table): perigee.SignalPrice  where it takes more than a look

--- The cost of one reading of a family: `batches` of `micro` images, each of so many flops by these calls, and the
--- bytes that it takes on the run's device in addition to a step's.
---@class perigee.SignalPrice
---@field batches integer
---@field bytes number
---@field flops number
---@field calls table[]

--- What a step says of each of its samples. It changes no bit of the training.
---@class perigee.Stream
---@field fork? fun(self: perigee.Signal, stage: table): string  the tap at which it needs the alignment's gradient
---  apart
---@field record fun(self: perigee.Signal, trace: perigee.StreamTrace): perigee.Value  [B,n]
---@field absorb fun(self: perigee.Signal, state?: table, numbers: number[], times: number[]): table  the state with a
---  step's numbers in it: n a sample, one sample after the other

local Signal = {}
Signal.__index = Signal
function M.is_signal(x) return getmetatable(x) == Signal end

function Signal:due(step)
  local from, every = self.settings.from, self.settings.every
  return step >= from and (step - from) % every == 0
end

function Signal.check() end

--- The settings by name, as config.json has them: what has none, such as the loss of signal.loss, is called "1".
---@return table<string, any>
function Signal:named_settings()
  local named = {}
  for key, value in pairs(self.settings) do named[tostring(key)] = value end
  return named
end

local taken = { step = true, stage = true, stage_steps = true } -- fields of every event

local function make(kind, define)
  return function(...)
    local signal = define(...)
    if taken[signal.name] then
      core.fail("signal.%s: '%s' is a field of every event; choose another name", kind, signal.name)
    end
    signal.kind, signal.place = kind, core.user_position()
    return setmetatable(signal, Signal)
  end
end

--- The signals of a list without repetitions; two different ones of the same name are an error.
function M.unique(signals)
  local by_name, list = {}, {}
  for _, signal in ipairs(signals) do
    if not M.is_signal(signal) then core.fail("expected a signal, got a %s", type(signal)) end
    local other = by_name[signal.name]
    if other and other.key ~= signal.key then
      core.fail("two different signals are named '%s' (%s; %s); give one another name", signal.name,
        other.key, signal.key)
    end
    if not other then
      by_name[signal.name] = signal
      list[#list + 1] = signal
    end
  end
  return list
end

--- The signals of a stage: the signals that its policy reads and those that it names itself, without repetitions.
---@param finish perigee.Stop
---@param logged perigee.Signal[]
---@return perigee.Signal[]
function M.of_stage(finish, logged)
  local all = { unpack(finish.needs) }
  for _, signal in ipairs(logged) do all[#all + 1] = signal end
  return M.unique(all)
end

--- Signals in groups: each a family, or one signal.
---@return perigee.Signal[][]
function M.families(list)
  local groups, by_family = {}, {}
  for _, signal in ipairs(list) do
    local group = signal.family and by_family[signal.family]
    if group then group[#group + 1] = signal
    else
      groups[#groups + 1] = { signal }
      if signal.family then by_family[signal.family] = groups[#groups] end
    end
  end
  return groups
end

--- Those of a list that are recorded into the step.
---@return perigee.Signal[]
function M.streams(list)
  local streams = {}
  for _, signal in ipairs(list) do
    if signal.stream then streams[#streams + 1] = signal end
  end
  return streams
end

--- The values of signals by name, measured on a run. `states`: what signals keep, by name, which is brought up to date.
function M.measure(list, run, states)
  local values = {}
  states = states or {}
  for _, members in ipairs(M.families(list)) do
    local first = members[1]
    if #members > 1 then
      local measured = first.measure_family(members, run)
      for k, signal in ipairs(members) do values[signal.name] = measured[k] end
    else
      local value, state = first:measure(run, states[first.name])
      values[first.name], states[first.name] = value, state or states[first.name]
    end
  end
  return values
end

return room.open({ module = "perigee.signals", what = "signal", make = make }, M)
