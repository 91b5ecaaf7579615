--- A run's log: events.jsonl, one JSON object a line, appended and flushed as things happen. A run can be explained
--- from it alone.
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local LONGEST_FIRST = 2 ^ 18 -- bytes of an event that is logged before it is done
local MOST_WAITING = 8 * 2 ^ 20 -- bytes of lines that are kept while they can't be written

---@class perigee.Events
---@field tell fun(message: string)
---@field heard? fun(event: table)
---@field bytes number     of the lines that were given to it
---@field cut boolean       the file ends in a part of a line
---@field outage { reason: string, from?: integer, to?: integer, lines: string[], next: integer, bytes: integer,
---  lost: integer }|false  since a line could not be written: those that wait, and how many found no room
local Events = {}
Events.__index = Events

--- The log of a run, to append to. `tell` gets a sentence when it can't be written, and when it can be again.
---@param folder string
---@param tell? fun(message: string)
---@param heard? fun(event: table)  called with every event, whether it could be written or not
---@return perigee.Events
function Events.open(folder, tell, heard)
  local path = folder .. "/events.jsonl"
  return setmetatable({ path = path, writer = files.append(path), tell = tell or function() end, heard = heard,
    bytes = 0, cut = false, outage = false }, Events)
end

--- Appends a text; false and the reason where that fails. A line that was cut short before is made one that no reader
--- takes for an event.
local function attempt(self, text)
  if self.outage then -- a handle may have gone stale
    local fine, writer = pcall(files.append, self.path)
    if fine then self.writer, writer = writer, self.writer end
    if fine then pcall(writer.suspend, writer) end
  end
  local before = self.writer:bytes()
  local fine, message = pcall(self.writer.write, self.writer, (self.cut and " (cut short)\n" or "") .. text)
  self.cut = not fine and (self.cut or self.writer:bytes() > before)
  return fine, message
end

local function begin_outage(self, reason, step)
  self.outage = { reason = reason, from = step, to = step, lines = {}, next = 1, bytes = 0, lost = 0 }
  self.tell(("%s; the log's lines wait in memory until it can be"):format(reason))
end

local function keep(outage, line, step)
  outage.to = step or outage.to
  if outage.bytes + #line > MOST_WAITING then outage.lost = outage.lost + 1
  else
    outage.lines[#outage.lines + 1] = line
    outage.bytes = outage.bytes + #line
  end
end

local function sentence(outage)
  return ("the log could not be written from step %s to step %s (%s): %d lines are late%s"):format(
    outage.from or "?", outage.to or "?", outage.reason, #outage.lines,
    outage.lost > 0 and (", %d are lost"):format(outage.lost) or "")
end

--- Writes the lines that wait, then a warning about them. True if nothing waits any more.
---@return boolean
function Events:catch_up()
  local outage = self.outage
  if not outage then return true end
  while outage.next <= #outage.lines do
    if not attempt(self, outage.lines[outage.next]) then return false end
    outage.bytes = outage.bytes - #outage.lines[outage.next]
    outage.next = outage.next + 1
  end
  local message = sentence(outage)
  local warning = { event = "warning", about = "log", step = outage.to, message = message }
  if not attempt(self, json.encode(warning) .. "\n") then return false end
  self.outage = false
  self.tell("the log is written again: " .. message)
  return true
end

--- Appends an event that tells of what has been done. Training does not depend on it: what can't be written waits.
---@param event table
function Events:write(event)
  if self.heard then self.heard(event) end
  local line = json.encode(event) .. "\n"
  self.bytes = self.bytes + #line
  if self:catch_up() then
    local fine, reason = attempt(self, line)
    if fine then return end
    begin_outage(self, reason, event.step)
  end
  keep(self.outage, line, event.step)
end

--- Appends an event that must stand in the log before what it tells of is done. Raises where it can't be written, and
--- where it is longer than such an event may be.
---@param event table
function Events:write_first(event)
  local line = json.encode(event) .. "\n"
  if #line > LONGEST_FIRST then
    error(("the event has %d bytes in the log; expected at most %d"):format(#line, LONGEST_FIRST), 0)
  end
  self.bytes = self.bytes + #line
  if not self:catch_up() then error(self.outage.reason, 0) end
  local fine, reason = attempt(self, line)
  if not fine then error(reason, 0) end
  if self.heard then self.heard(event) end
end

--- Ends the log. Lines that still wait are lost, and said to be.
function Events:close()
  if not self:catch_up() then self.tell(sentence(self.outage) .. "; at the end they are lost") end
  if self.cut then attempt(self, "") end
  self.writer:suspend()
end

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

--- The `evaluation` events of a log, which other processes may write while the run goes on; none where there is no log.
---@param folder string
---@return table[]
function Events.evaluations(folder)
  local list, path = {}, folder .. "/events.jsonl"
  if not files.exists(path) then return list end
  for line in files.read(path):gmatch "[^\n]+" do
    local fine, event
    if line:find('"evaluation"', 1, true) then fine, event = pcall(json.decode, line) end
    if fine and not wrong(event) and event.event == "evaluation" then list[#list + 1] = event end
  end
  return list
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
