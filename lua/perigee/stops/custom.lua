--- Your own policy: stop.custom { needs = { signals }, function(event, state) return finished, state end }. The
--- function must be pure: same event and state, same answer. The first state is an empty table. A state is kept in
--- checkpoints, so it is a table of numbers, texts, booleans and such tables.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local json = require "perigee.io.json"

--- A copy of a state or an event: the policy's own.
local function copy(value, depth)
  if type(value) ~= "table" then return value end
  if depth > 8 then core.fail "the policy's state is nested too deeply" end
  local result = {}
  for key, inner in pairs(value) do result[key] = copy(inner, depth + 1) end
  return result
end

---@class perigee.CustomStopOptions
---@field [1] fun(event: perigee.Event, state: table): boolean, table?, string?  finished, next state, reason
---@field needs? perigee.Signal[]
---@field name? string             "custom"

---@class perigee.stops
---@field custom fun(options: perigee.CustomStopOptions): perigee.Stop

---@param options perigee.CustomStopOptions
---@return perigee.Stop
return function(options)
  local o = check.options("stop.custom", options,
    { needs = { "table", {} }, [1] = "function", name = { "string", "custom" } })
  local body = o[1]
  return {
    arguments = { o }, needs = o.needs, text = o.name,
    decide = function(_, event, state)
      local finished, next_state, reason = body(copy(event, 1), copy(state, 1))
      if next_state == nil then next_state = state end
      if type(next_state) ~= "table" then
        core.fail("stop.custom: the policy's state is a %s; it must be a table", type(next_state))
      end
      local fine, text = pcall(json.encode, next_state)
      if not fine then core.fail("stop.custom: the policy's state cannot be kept in a checkpoint: %s", text) end
      reason = reason and tostring(reason) or finished and o.name .. " decided" or nil
      return finished and true or false, copy(json.decode(text), 1), reason -- as a checkpoint would give it back
    end,
  }
end
