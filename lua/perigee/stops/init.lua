--- Termination policies. A stop decides when a stage ends. It is pure: `decide(self, event, state)` returns whether the
--- stage is finished and the next state, from the event alone (its step and the signals it `needs`), so that it can be
--- replayed over a recorded run and its state saved with the checkpoint. A decision is one-way.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"

---@class perigee.stops
local M = {}

---@class perigee.Stop
---@field kind string                its constructor: pg.stop.KIND, stops.constructors[KIND]
---@field arguments table            what that was given, so that a stop can be written as source again
---@field text string                what the log calls it
---@field latest fun(self: perigee.Stop): integer?  the step by which it has decided, where it can say one
---@field needs perigee.Signal[]     what it reads
---@field decide fun(self: perigee.Stop, event: perigee.Event, state: table): boolean, table, string?  finished,
---  next state, reason
local Stop = {}

--- What a policy reads: the step, the stage's name, and each signal that was due, by its name.
---@class perigee.Event
---@field step integer    steps of the run done
---@field stage string
---@field [string] any
Stop.__index = Stop
function M.is_stop(x) return getmetatable(x) == Stop end

--- The stops by name, for recipes, consoles and policies kept as source.
M.constructors = {}

--- Makes `make` pg.stop.NAME. It returns the fields of a stop; its arguments are kept beside them.
local function define(name, make)
  M[name] = function(...)
    local stop = make(...)
    stop.kind, stop.arguments, stop.needs = name, stop.arguments or { ... }, stop.needs or {}
    return setmetatable(stop, Stop)
  end
  M.constructors[name] = M[name]
end

function Stop:__tostring() return self.text end

--- The state before the first event.
function Stop:initial() return self.first and self.first() or {} end

function Stop.latest() return nil end

--- Ends the stage when `n` steps of the run are done.
---@param n integer
---@return perigee.Stop
define("at_step", function(n)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 0 then core.fail("stop.at_step: %s is no step number", tostring(n)) end
  return {
    text = ("at_step(%d)"):format(n), latest = function() return n end,
    decide = function(_, event, state)
      if event.step >= n then return true, state, ("step %d reached"):format(n) end
      return false, state
    end,
  }
end)

---@class perigee.GradientAngleOptions
---@field block? integer     5
---@field time? number[]     { 0.02, 0.1, 0.5, 0.8 }
---@field images? integer    2048
---@field from? integer      50000
---@field every? integer     10000
---@field below? number      -0.05
---@field patience? integer  1
---@field ema? boolean       false

--- The paper's trigger (HASTE, arXiv 2505.16792, review thread): the cosine between the gradients of the alignment
--- losses and of the denoising loss with respect to the parameters of block `block` (from 1), at each of `time` over
--- `images` random training images, every `every` steps from step `from` on; ends the stage when the mean over the
--- times is below `below`. `patience` readings in a row must be (1, the paper's, unless told otherwise). `ema`: at the
--- moving averages of the weights, where readings are steadier.
---@param options? perigee.GradientAngleOptions
---@return perigee.Stop
define("gradient_angle", function(options)
  local o = check.options("stop.gradient_angle", options or {}, {
    block = { "count", 5 }, time = { "numbers", { 0.02, 0.1, 0.5, 0.8 } }, images = { "count", 2048 },
    from = { "natural", 50000 }, every = { "count", 10000 }, below = { "number", -0.05 }, patience = { "count", 1 },
    ema = { "boolean", false },
  })
  local signal = require("perigee.signals").gradient_angle {
    block = o.block, time = o.time, images = o.images, from = o.from, every = o.every, ema = o.ema,
  }
  return {
    arguments = { o }, needs = { signal },
    text = ("gradient_angle(block %d, below %g)"):format(o.block, o.below),
    first = function() return { below = 0 } end,
    decide = function(_, event, state)
      local reading = event[signal.name]
      if reading == nil then return false, state end
      local mean = type(reading) == "table" and reading.mean or reading
      local count = mean < o.below and state.below + 1 or 0
      local reason = count >= o.patience and ("gradient angle %.4f is below %g"):format(mean, o.below) or nil
      return reason ~= nil, { below = count }, reason
    end,
  }
end)

---@class perigee.PlateauOptions
---@field loss string        the loss's name
---@field patience? integer  readings without improvement: 20
---@field every? integer     10
---@field from? integer      0
---@field by? number         what counts as improvement: 0.001

--- Ends the stage when a loss has not fallen by `by` below its best for `patience` readings.
---@param options perigee.PlateauOptions
---@return perigee.Stop
define("plateau", function(options)
  local o = check.options("stop.plateau", options, {
    loss = "string", patience = { "count", 20 }, every = { "count", 10 }, from = { "natural", 0 },
    by = { "number", 0.001 },
  })
  return {
    arguments = { o }, needs = { require("perigee.signals").loss { o.loss, from = o.from, every = o.every } },
    text = ("plateau(%s, %d readings)"):format(o.loss, o.patience),
    first = function() return { waited = 0 } end,
    decide = function(_, event, state)
      local value = event[o.loss]
      if value == nil then return false, state end
      if not state.best or value < state.best - o.by then return false, { best = value, waited = 0 } end
      local waited = state.waited + 1
      local done = waited >= o.patience
      return done, { best = state.best, waited = waited },
        done and ("%s: no better than %.4g for %d readings"):format(o.loss, state.best, waited) or nil
    end,
  }
end)

local function combine(kind, wanted, latest, stops)
  local needs, texts = {}, {}
  if #stops == 0 then core.fail("stop.%s: it needs at least one stop", kind) end
  for k, stop in ipairs(stops) do
    if not M.is_stop(stop) then core.fail("stop.%s: argument %d is a %s, not a stop", kind, k, type(stop)) end
    for _, signal in ipairs(stop.needs) do needs[#needs + 1] = signal end
    texts[k] = stop.text
  end
  return {
    needs = needs, text = kind .. "(" .. table.concat(texts, ", ") .. ")",
    first = function()
      local state = {}
      for k, stop in ipairs(stops) do state[k] = { finished = false, state = stop:initial() } end
      return state
    end,
    decide = function(_, event, state)
      local next_state, finished, reasons = {}, 0, {}
      for k, stop in ipairs(stops) do
        local done, inner, reason = state[k].finished, state[k].state, state[k].reason
        if not done then done, inner, reason = stop:decide(event, inner) end
        next_state[k] = { finished = done, state = inner, reason = reason }
        if done then
          finished = finished + 1
          reasons[#reasons + 1] = reason or stop.text
        end
      end
      return finished >= (wanted or #stops), next_state, table.concat(reasons, " and ")
    end,
    latest = function()
      local steps = {}
      for _, stop in ipairs(stops) do steps[#steps + 1] = stop:latest() end
      return #steps >= (wanted or #stops) and latest(unpack(steps)) or nil
    end,
  }
end

--- Ends the stage when any of the given stops does.
---@param ... perigee.Stop
---@return perigee.Stop
define("any", function(...) return combine("any", 1, math.min, { ... }) end)

--- Ends the stage when all of the given stops have decided to; each decision is kept.
---@param ... perigee.Stop
---@return perigee.Stop
define("all", function(...) return combine("all", nil, math.max, { ... }) end)

--- A policy of one's own: stop.custom { needs = { signals }, function(event, state) return finished, state end }. The
--- function must be pure: same event and state, same answer. The first state is an empty table. A state is kept in
--- checkpoints, so it is a table of numbers, texts, booleans and such tables.
---@param options { needs?: perigee.Signal[], name?: string, [1]: fun(event: perigee.Event, state: table): boolean,
---  table?, string? }
---@return perigee.Stop
define("custom", function(options)
  local o = check.options("stop.custom", options,
    { needs = { "table", {} }, [1] = "function", name = { "string", "custom" } })
  local body = o[1]
  return {
    arguments = { o }, needs = o.needs, text = o.name,
    decide = function(_, event, state)
      local finished, next_state, reason = body(event, state)
      if next_state == nil then next_state = state end
      if type(next_state) ~= "table" then
        core.fail("stop.custom: the policy's state is a %s; it must be a table", type(next_state))
      end
      local fine, message = pcall(json.encode, next_state)
      if not fine then core.fail("stop.custom: the policy's state cannot be kept in a checkpoint: %s", message) end
      return finished and true or false, next_state, reason or (finished and o.name .. " decided" or nil)
    end,
  }
end)

return M
