--- A run's log, as a resume, `compare` and `replay` read it.
local Events = require "perigee.record.events"
local Record = require "perigee.compare.record"
local Recorded = require "perigee.replay.recorded"
local check = require "tests.fuzz.check"
local files = require "perigee.io.files"

return { file = "events.jsonl", beside = { ["config.json"] = '{"batch":4}' }, read = function(_, path)
  local folder = files.split(path)
  for _, event in ipairs(Events.read(folder, function() end)) do
    check.demand(type(event.event) == "string", "an event without a name")
  end
  local record = Record.read(folder)
  for _, unit in ipairs { "step", "images", "seconds" } do
    local place = record:axis(unit)
    for _, series in pairs(record.series) do
      for _, step in ipairs(series.steps) do place(step) end
    end
  end
  record:work(0, record.last_step)
  local fine, message = pcall(Recorded.read, folder)
  if not fine and not message:find("names no stage", 1, true) then error(message, 0) end
end }
