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
    if fine and type(event) == "table" and type(event.event) == "string" then list[#list + 1] = event
    elseif tell and line:sub(-1) == "\n" then
      tell(("%s: line %d is left out: %s"):format(path, number,
        fine and "it is not an event" or event:match "line 1: (.*)" or event))
    end
  end
  return list
end

return Events
