--- Signals: quantities measured while a stage runs, each at its own cadence, written into the run's events and read by
--- policies. A signal is { name, due(step) -> boolean, measure(self, run) -> a number or a table of numbers }. Those of
--- one `family` are measured together, in one pass: measure_family(members, run) -> a list of values.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.signals
local M = {}

---@class perigee.Signal
---@field name string   by which an event holds its value
---@field kind string
---@field due fun(self: perigee.Signal, step: integer): boolean
---@field measure fun(self: perigee.Signal, run: perigee.Run): number|table
---@field of_step? boolean   it is about the step just done, and can't be measured without one
---@field family? string
---@field measure_family? fun(members: perigee.Signal[], run: perigee.Run): table[]
local Signal = {}
Signal.__index = Signal
function M.is_signal(x) return getmetatable(x) == Signal end

local function new(fields) return setmetatable(fields, Signal) end

--- Due at step `from` and every `every` steps after it.
local function cadence(from, every)
  return function(_, step) return step >= from and (step - from) % every == 0 end
end

--- The value of a loss of the step just done: signal.loss { "features" }.
---@param options { [1]: string, from?: integer, every?: integer }  from 0, every 1
---@return perigee.Signal
function M.loss(options)
  local o = check.options("signal.loss", options, { [1] = "string", from = { "natural", 0 }, every = { "count", 1 } })
  return new {
    kind = "loss", name = o[1], settings = o, key = ("loss %s %d %d"):format(o[1], o.from, o.every), of_step = true,
    due = cadence(o.from, o.every),
    measure = function(_, run)
      local value = run.losses[o[1]]
      if value == nil then
        local names = {}
        for k, entry in ipairs(run.stage.losses) do names[k] = entry.name end
        core.fail("signal.loss: the stage '%s' has no loss '%s'; it has %s", run.stage.name, o[1],
          table.concat(names, ", "))
      end
      return value
    end,
  }
end

--- The norm of the whole gradient of the step just done, before clipping.
---@param options? { from?: integer, every?: integer }
---@return perigee.Signal
function M.gradient_norm(options)
  local o = check.options("signal.gradient_norm", options or {}, { from = { "natural", 0 }, every = { "count", 1 } })
  return new {
    kind = "gradient_norm", name = "gradient_norm", settings = o, key = ("gradient_norm %d %d"):format(o.from, o.every),
    due = cadence(o.from, o.every), of_step = true,
    measure = function(_, run) return run.gradient_norm end,
  }
end

--- Gradient angles of one family differ in their block alone.
local function angles(members, run)
  local blocks = {}
  for k, signal in ipairs(members) do blocks[k] = signal.settings.block end
  return require("perigee.signals.gradient_angle").measure(run, blocks, members[1].settings)
end

--- The angle between the alignment's and the denoising loss's gradients: see signals/gradient_angle.lua.
--- `ema`: at the moving averages of the weights.
---@param options? { name?: string, block?: integer, time?: number[], images?: integer, from?: integer,
---  every?: integer, ema?: boolean }
---@return perigee.Signal
function M.gradient_angle(options)
  local o = check.options("signal.gradient_angle", options or {}, {
    name = { "string", "gradient_angle" }, block = { "count", 5 }, time = { "numbers", { 0.02, 0.1, 0.5, 0.8 } },
    images = { "count", 2048 }, from = { "natural", 50000 }, every = { "count", 10000 },
    ema = { "boolean", false },
  })
  if #o.time == 0 then core.fail "signal.gradient_angle: time lists no times" end
  for _, t in ipairs(o.time) do
    if type(t) ~= "number" or t < 0 or t > 1 then
      core.fail("signal.gradient_angle: time %s is not between 0 and 1", tostring(t))
    end
  end
  local measured = ("%s %d%s"):format(table.concat(o.time, "/"), o.images, o.ema and " ema" or "")
  return new {
    kind = "gradient_angle", name = o.name, settings = o, due = cadence(o.from, o.every),
    key = ("gradient_angle %d %s %d %d"):format(o.block, measured, o.from, o.every),
    family = "gradient_angle " .. measured, measure_family = angles,
    measure = function(self, run) return angles({ self }, run)[1] end,
  }
end

--- The signals by name, for consoles and policies kept as source.
M.constructors = { loss = M.loss, gradient_norm = M.gradient_norm, gradient_angle = M.gradient_angle }

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

--- What a stage measures: the signals that its policy reads and those that it names itself, without repetitions.
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

--- The values of signals by name, measured on a run.
function M.measure(list, run)
  local values = {}
  for _, members in ipairs(M.families(list)) do
    local first = members[1]
    local measured = #members > 1 and first.measure_family(members, run) or { first:measure(run) }
    for k, signal in ipairs(members) do values[signal.name] = measured[k] end
  end
  return values
end

return M
