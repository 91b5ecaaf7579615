--- Policies as a command line gives them: a Lua expression, in which a name may take several values.
local chunk = require "perigee.sandbox.chunk"
local nearest = require "perigee.base.nearest"
local signals = require "perigee.signals"
local stops = require "perigee.stops"
local tables = require "perigee.base.tables"

local M = {}

local MOST = 1000 -- values of a sweep

---@class perigee.Sweep
---@field name string
---@field values number[]

--- "NAME=LOW:HIGH:STEP" or "NAME=A,B,C" as a sweep.
---@param text string
---@return perigee.Sweep
function M.sweep(text)
  local function refuse(why)
    error(("--sweep %s: %s; expected NAME=LOW:HIGH:STEP or NAME=A,B,..., such as below=-0.1:0:0.01"):format(text,
      why), 0)
  end
  local name, range = text:match "^%s*([%a_][%w_]*)%s*=%s*(.-)%s*$"
  if not name or range == "" then refuse "it names no values" end
  local values = {}
  local low, high, step = range:match "^([^:,]+):([^:,]+):([^:,]+)$"
  if low then
    low, high, step = tonumber(low), tonumber(high), tonumber(step)
    if not (low and high and step) then refuse "a bound is not a number" end
    if step <= 0 or step ~= step or high < low then refuse "the values must rise from LOW to HIGH by STEP > 0" end
    local count = math.floor((high - low) / step + 1e-9)
    if count >= MOST then refuse(("it has %d values; the most are %d"):format(count + 1, MOST)) end
    for k = 0, count do values[k + 1] = tonumber(("%.12g"):format(low + k * step)) end
  else
    for item in (range .. ","):gmatch "([^,]*)," do
      values[#values + 1] = tonumber(item) or refuse(("'%s' is not a number"):format(item))
    end
  end
  return { name = name, values = values }
end

local function environment_of(name, value)
  local library = { stop = stops, signal = signals }
  local known = tables.merged(library, { pg = library, math = math, pairs = pairs, ipairs = ipairs, type = type,
    tostring = tostring, tonumber = tonumber, error = error, assert = assert, select = select, unpack = unpack,
    string = string, table = table })
  local used = false
  return setmetatable({}, { __index = function(_, key)
    if key == name then
      used = true
      return value
    end
    if known[key] ~= nil then return known[key] end
    error(("unknown name '%s'%s"):format(tostring(key), nearest.hint(tostring(key), tables.sorted_keys(library))), 0)
  end }), function() return used end
end

--- The stop that an expression is, with `name` standing for `value`. The second result says whether the expression
--- uses that name.
---@param text string
---@param name? string
---@param value? number
---@return perigee.Stop stop, boolean used
function M.stop(text, name, value)
  local environment, used = environment_of(name, value)
  local compiled, message = chunk.compile(text, environment, "--stop")
  local function refuse(why)
    error(("--stop '%s': %s"):format(text, (tostring(why):gsub("^%-%-stop %d+:1: ", ""))), 0)
  end
  if not compiled then refuse(message) end
  local fine, stop = pcall(compiled)
  if not fine then refuse(stop) end
  if not stops.is_stop(stop) then
    refuse(("it is a %s; expected a policy, such as stop.gradient_angle { block = 2 }"):format(type(stop)))
  end
  return stop, used()
end

return M
