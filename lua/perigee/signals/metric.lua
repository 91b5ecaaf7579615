--- The newest evaluation of the run: signal.metric { "distance" } is that field of the newest `evaluation` event in its
--- log, which `perigee eval` writes while the run goes on, or what evaluates it within. Its value is { value =, step =
--- at which the weights were that were evaluated }; before the first one, { undefined = }.
local check = require "perigee.core.check"

---@class perigee.MetricOptions
---@field [1] string       the event's field: "distance", "accuracy", "fid"
---@field of? string       only events of this name: "teacher", say
---@field name? string     "metric FIELD"
---@field from? integer    0
---@field every? integer   steps between looks into the log: 100

---@class perigee.signals
---@field metric fun(options: perigee.MetricOptions): perigee.Signal

--- The value that the newest of these events, up to a step, gives.
local function newest(o, events, step)
  local found
  for _, event in ipairs(events) do
    local value = event[o[1]]
    local counts = type(value) == "number" and type(event.step) == "number" and event.step <= step
      and (not o.of or event.name == o.of)
    if counts and not (found and event.step < found.step) then found = { value = value, step = event.step } end
  end
  return found or { undefined = ("no evaluation has a field '%s' yet"):format(o[1]) }
end

---@param options perigee.MetricOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.metric", options, {
    [1] = "string", of = { "string" }, name = { "string" }, from = { "natural", 0 }, every = { "count", 100 },
  })
  o.name = o.name or "metric " .. o[1] .. (o.of and " of " .. o.of or "")
  return {
    name = o.name, settings = o, key = ("metric %s %s %d %d"):format(o[1], o.of or "", o.from, o.every),
    measure = function(_, run) return newest(o, run:evaluations(), run.step) end,
    of_evaluations = function(_, events, step) return newest(o, events, step) end,
  }
end
