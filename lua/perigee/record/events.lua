--- A run's log: events.jsonl, one JSON object a line, appended and flushed as things happen. A run can be explained
--- from it alone.
local files = require "perigee.io.files"
local json = require "perigee.io.json"

---@class perigee.Events
local Events = {}
Events.__index = Events

function Events.open(folder) return setmetatable({ writer = files.append(folder .. "/events.jsonl") }, Events) end

--- Appends one event. A full disk is reported, not swallowed; what it cut short ends before the next event begins.
function Events:write(event)
  local line = (self.cut and "\n" or "") .. json.encode(event) .. "\n"
  self.cut = true
  self.writer:write(line)
  self.cut = false
end

function Events:close() self.writer:suspend() end

local TYPES = { step = "number", number = "number", stage = "string", path = "string", text = "string",
  file = "string", name = "string", reason = "string", losses = "table" }

--- What is wrong with a line's value as an event, or nil.
local function wrong(event)
  if type(event) ~= "table" or type(event.event) ~= "string" then return "it is not an event" end
  for field, kind in pairs(TYPES) do
    local value = event[field]
    if value ~= nil and type(value) ~= kind then
      return ("its '%s' is a %s; expected a %s"):format(field, type(value), kind)
    end
  end
end

--- Reads a log: a list of events. A last line cut short by a crash is left out; so is any other that is no event, and
--- `tell` is called with a sentence about it.
---@param folder string
---@param tell? fun(message: string)
---@return table[]
function Events.read(folder, tell)
  local list, path, number = {}, folder .. "/events.jsonl", 0
  for line in files.read(path):gmatch "[^\n]*\n?" do
    if line == "" then break end
    number = number + 1
    local fine, event = pcall(json.decode, (line:gsub("%s+$", "")))
    local problem = fine and wrong(event)
    if fine and not problem then list[#list + 1] = event
    elseif tell and line:sub(-1) == "\n" then
      tell(("%s: line %d is left out: %s"):format(path, number,
        problem or event:match "line 1: (.*)" or event))
    end
  end
  return list
end

return Events
