--- Your own policy: stop.custom { needs = { signals }, function(event, state) return finished, state end }. The
--- function must be pure: same event and state, same answer. It answers true or false; the next state, where it is
--- another; and a reason for the log, if it likes. The first state is an empty table. A state is kept in checkpoints,
--- so it is a table of numbers, texts, booleans and such tables. The policy gets copies, which it may write to.
local check = require "perigee.core.check"
local chunk = require "perigee.sandbox.chunk"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"
local limit = require "perigee.sandbox.limit"
local printable = require "perigee.base.printable"
local stops = require "perigee.stops"

---@class perigee.CustomStopOptions
---@field [1] fun(event: perigee.Event, state: table): boolean, table?, string?  finished, next state, reason
---@field needs? perigee.Signal[]
---@field name? string             "custom"

---@class perigee.stops
---@field custom fun(options: perigee.CustomStopOptions): perigee.Stop

local LARGEST = 65536 -- bytes of a state in a checkpoint

--- A copy of a state or an event: the policy's own.
local function copy(value, depth)
  if type(value) ~= "table" then return value end
  if depth > 8 then core.fail "the policy's state is nested too deeply" end
  local result = {}
  for key, inner in pairs(value) do result[key] = copy(inner, depth + 1) end
  return result
end

--- The bytes that a state takes at least, counted until there are too many.
local function least_size(value, depth, size)
  if type(value) == "string" then return size + #value end
  if type(value) ~= "table" or depth > 8 then return size + 1 end
  for key, inner in next, value do
    size = least_size(inner, depth + 1, size + (type(key) == "string" and #key or 1))
    if size > LARGEST then break end
  end
  return size
end

--- A policy's result, checked: finished, the next state as a checkpoint gives it back, reason. `before`: the state
--- it was given; `own`: its copy of that. Nil and what is wrong, where the answer is none.
local function answer(before, own, finished, next_state, reason)
  if finished == nil then return nil, "it returns nothing (nil); expected true or false" end
  if type(finished) ~= "boolean" then
    return nil, ("it returns a %s (%s); expected true or false"):format(type(finished), tostring(finished))
  end
  local given = next_state
  if given == nil then given = own end
  if type(given) ~= "table" then return nil, ("its state is a %s; it must be a table"):format(type(given)) end
  local fine, text = least_size(given, 1, 0) <= LARGEST, nil
  if fine then fine, text = pcall(json.encode, given) end
  if not text or #text > LARGEST then
    return nil, ("its state has more than the %d bytes that a checkpoint keeps"):format(LARGEST)
  end
  if not fine then return nil, "its state cannot be kept in a checkpoint: " .. text end
  if next_state == nil then
    if text ~= json.encode(before) then
      return nil, "it changes its state and returns none; return the state as the second result"
    end
    return finished, before, reason
  end
  return finished, copy(json.decode(text), 1), reason
end

--- A reason as the log keeps it.
local function said(reason)
  local text = tostring(reason)
  if #text <= 1000 and printable.is_utf8(text) then return text end
  return "(a reason that is not UTF-8, or of more than 1000 bytes)"
end

---@param options perigee.CustomStopOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.custom", options,
    { needs = { "table", {} }, [1] = "function", name = { "string", "custom" } })
  local body, info = o[1], debug.getinfo(o[1], "S")
  if #o.name > 100 or not printable.is_utf8(o.name) or o.name:find "%c" then
    core.fail "stop.custom: the name is UTF-8 of at most 100 bytes without control characters"
  end
  local name = ("policy '%s'%s"):format(o.name,
    info.source:sub(1, 1) == "@" and (" (%s:%d)"):format(info.source:sub(2), info.linedefined) or "")
  return {
    arguments = { o }, needs = o.needs, text = o.name,
    decide = function(_, event, state)
      local own = copy(state, 1)
      local function refuse(problem)
        error(("%s: %s; its event has %s"):format(name, problem, table.concat(stops.names_of(event), ", ")), 0)
      end
      local results = { xpcall(body, chunk.handler(limit.is_users), setmetatable(copy(event, 1), getmetatable(event)),
        own) }
      if not results[1] then refuse(results[2]) end
      local finished, next_state, reason = answer(state, own, unpack(results, 2, 4))
      if finished == nil then refuse(next_state) end
      return finished, next_state, reason and said(reason) or finished and o.name .. " decided" or nil
    end,
  }
end
