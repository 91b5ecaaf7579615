--- Results of evaluations in a run's log.
local events = require "perigee.record.events"
local printable = require "perigee.base.printable"

local M = {}

--- Appends an event "evaluation" to a run's log. Where that can't be, a note says so; the result is printed anyway.
---@param folder string
---@param step integer  of the checkpoint
---@param event table
---@return table event
function M.record(folder, step, event)
  event.event, event.step = "evaluation", step
  local function tell(message) io.stderr:write("note: ", printable.text(message), "\n") end
  local fine, log = pcall(events.open, folder, tell)
  if not fine then
    tell(("the result is not in the run's log: %s"):format(tostring(log)))
    return event
  end
  log:write(event)
  log:close()
  return event
end

return M
