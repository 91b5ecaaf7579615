--- Policies as Lua source, which is how a run that was given one by hand keeps it: in its log and in its checkpoints.
---
---   stop.any(stop.gradient_angle { block = 2, ... }, stop.at_step(500))
---
--- A policy's own function is source too. It is compiled alone, so it cannot see variables from outside; one that tries
--- is refused. It runs within a limit, and if it fails, the stage continues and the failure is an event.
local chunk = require "perigee.sandbox.chunk"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local limit = require "perigee.sandbox.limit"
local lists = require "perigee.sandbox.lists"
local printable = require "perigee.base.printable"
local signals = require "perigee.signals"
local stops = require "perigee.stops"
local strings = require "perigee.sandbox.strings"
local tables = require "perigee.base.tables"

local SECONDS, MOST_LATE = 1, 3 -- that a decision may take; how often it may take longer
local MOST_TOLD, LONGEST_TOLD = 20, 1000 -- failures of a policy that are told, and their bytes

local M = {}

local texts = setmetatable({}, { __mode = "k" }) -- of policies' functions, as they were typed in

--- Gets the message when a policy's function fails.
function M.report(message) io.stderr:write("policy: ", message, "\n") end

-- ---- what a policy's function may use ---------------------------------------------------------------------------

--- A library that cannot be written to: what a policy kept there, no checkpoint would hold.
local function read_only(name, library)
  local proxy = newproxy(true)
  local class = getmetatable(proxy)
  class.__index, class.__metatable = library, "read-only"
  function class.__newindex() core.fail("%s is read-only; keep it in the policy's state", name) end
  return proxy
end

local mathematics = tables.copy(math)
mathematics.random, mathematics.randomseed = nil, nil

local pure = {
  math = read_only("math", mathematics), string = read_only("string", strings), table = read_only("table", lists),
  pairs = pairs, ipairs = ipairs, next = next, select = select, unpack = unpack,
  type = type, tonumber = tonumber, tostring = tostring, error = error, assert = assert,
}

local alone = { __metatable = "read-only", __index = pure, __newindex = function(_, name)
  core.fail("a policy cannot set the global '%s'; keep it in the policy's state", tostring(name))
end }

local function known() return table.concat(tables.sorted_keys(pure), ", ") end

-- ---- functions --------------------------------------------------------------------------------------------------

--- A function's source text, if it needs nothing from outside.
local function text_of(kind, f)
  local captured, globals = chunk.outside(f)
  if #captured > 0 then
    core.fail("stop.%s: the function captures '%s' from outside; a policy that is pasted into a run is kept as source "
      .. "and must stand alone: write the value into it, or keep it in the policy's state", kind,
      table.concat(captured, "', '"))
  end
  for _, name in ipairs(globals) do
    if pure[name] == nil then
      core.fail("stop.%s: the function uses the global '%s'; besides its arguments a policy may use %s", kind, name,
        known())
    end
  end
  return chunk.source_of(f)
    or core.fail("stop.%s: the function's source text is not known; paste it whole, as a function of its own", kind)
end

--- A function of its own from a text, which sees nothing but `pure` and keeps nothing.
local function compiled_alone(text)
  local compiled = assert(loadstring("return " .. text, "=policy"))
  jit.off(setfenv(compiled, {}), true)
  local body = setfenv(compiled(), setmetatable({}, alone))
  texts[body] = text
  return body
end

--- An argument of a stop that was typed in: functions, in tables too, are compiled alone. The second result says
--- whether there were any.
local function taken_in(kind, value)
  if type(value) == "function" then return compiled_alone(text_of(kind, value)), true end
  if type(value) ~= "table" or getmetatable(value) then return value, false end
  local result, any = {}, false
  for key, inner in pairs(value) do
    local own
    result[key], own = taken_in(kind, inner)
    any = any or own
  end
  return result, any
end

--- A stop with functions that were typed in: it decides within the limit, and a failure ends nothing.
local function guarded(stop)
  local decide, told, count, late = stop.decide, nil, 0, 0
  local function tell(message)
    if message == told or count >= MOST_TOLD then return end
    told, count = message, count + 1
    if count == MOST_TOLD then message = message .. "; further failures are not told" end
    M.report(message)
  end
  function stop.decide(self, event, state)
    if late >= MOST_LATE then return false, state end
    local started = core.C.pg_clock_seconds()
    local fine, finished, next_state, reason = limit.run(SECONDS, function() return decide(self, event, state) end,
      chunk.handler(limit.is_users))
    if fine then return finished, next_state, reason end
    if core.C.pg_clock_seconds() - started >= SECONDS then late = late + 1 end
    finished = printable.text(tostring(finished):sub(1, LONGEST_TOLD))
    tell(late == MOST_LATE and finished .. "; it is not asked any more" or finished)
    return false, state
  end
  return stop
end

--- Makes pg.stop.KIND of arguments that were typed in, or that M.write wrote.
---@param kind string
---@return perigee.Stop
function M.make(kind, ...)
  local arguments, guard = { ... }, false
  for k = 1, select("#", ...) do
    local own
    arguments[k], own = taken_in(kind, arguments[k])
    guard = guard or own
  end
  local stop = stops[kind](unpack(arguments, 1, select("#", ...)))
  return guard and guarded(stop) or stop
end

-- ---- writing ----------------------------------------------------------------------------------------------------

local function literal(value, recipe_finish)
  if value == recipe_finish then return "recipe_finish" end
  if stops.is_stop(value) then
    local parts = {}
    for k, argument in ipairs(value.arguments) do parts[k] = literal(argument, recipe_finish) end
    return ("stop.%s(%s)"):format(value.kind, table.concat(parts, ", "))
  end
  if signals.is_signal(value) then return ("signal.%s(%s)"):format(value.kind, literal(value.settings)) end
  if type(value) == "function" then
    return texts[value] or core.fail "a function of the recipe's policy has no source here; only run.stage.finish as a "
      .. "whole can be used again"
  end
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "number" then return json.encode(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts, names = {}, {}
  for k, item in ipairs(value) do parts[k] = literal(item) end
  for name in pairs(value) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do parts[#parts + 1] = name .. " = " .. literal(value[name]) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

--- A stop as source, or a signal or a value of their settings. The recipe's own stop, where it is given, is written as
--- `recipe_finish`.
function M.write(stop, recipe_finish) return literal(stop, recipe_finish) end

--- The stop that M.write wrote.
function M.read(text, recipe_finish)
  if type(text) ~= "string" then error(("a policy's source is a %s; expected a text"):format(type(text)), 0) end
  local environment = tables.copy(pure)
  environment.recipe_finish, environment.signal = recipe_finish, signals
  environment.stop = setmetatable({}, { __index = function(_, kind)
    return function(...) return M.make(kind, ...) end
  end })
  local compiled, message = chunk.compile(text, environment, "policy")
  if not compiled then error("a policy's source is damaged: " .. message, 0) end
  local fine, stop = limit.run(SECONDS, compiled, chunk.handler(limit.is_users)) -- it is what a log says
  if not fine then error("a policy's source fails: " .. tostring(stop), 0) end
  return stop
end

return M
