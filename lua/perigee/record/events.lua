--- A run's log: events.jsonl, one JSON object a line, appended and flushed as things happen. A run can be explained
--- from it alone.
local json = require "perigee.io.json"

---@class perigee.Events
local Events = {}
Events.__index = Events

function Events.open(folder)
  local path = folder .. "/events.jsonl"
  local file, message = io.open(path, "a")
  if not file then error("cannot write the event log " .. message, 0) end
  return setmetatable({ file = file, path = path }, Events)
end

--- Appends one event. A full disk is reported, not swallowed.
function Events:write(event)
  local fine, message = self.file:write(json.encode(event), "\n")
  if fine then fine, message = self.file:flush() end
  if not fine then error(("cannot write to %s: %s"):format(self.path, tostring(message)), 0) end
end

function Events:close() self.file:close() end

--- Reads a log: a list of events. A last line cut short by a crash is left out; so is any other that is no event, and
--- `tell` is called with a sentence about it.
---@param folder string
---@param tell? fun(message: string)
---@return table[]
function Events.read(folder, tell)
  local list, path, number = {}, folder .. "/events.jsonl", 0
  local file, message = io.open(path, "r")
  if not file then error("cannot read the event log " .. message, 0) end
  for line in file:lines "*L" do
    number = number + 1
    local fine, event = pcall(json.decode, (line:gsub("%s+$", "")))
    if fine and type(event) == "table" and type(event.event) == "string" then list[#list + 1] = event
    elseif tell and line:sub(-1) == "\n" then
      tell(("%s: line %d is left out: %s"):format(path, number,
        fine and "it is not an event" or event:match "line 1: (.*)" or event))
    end
  end
  file:close()
  return list
end

return Events
