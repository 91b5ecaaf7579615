--- A policy's source, as a log or a checkpoint holds it: read, written and read again.
local check = require "tests.fuzz.check"
local policy = require "perigee.record.policy"
local stops = require "perigee.stops"

policy.report = function() end

return { read = function(text)
  local fine, stop = pcall(policy.read, text)
  check.demand(fine or (type(stop) == "string" and stop:find "a policy's source "), "an error of no kind: %s",
    tostring(stop))
  if not fine or not stops.is_stop(stop) then return end
  local state = stop.first and stop:first() or {}
  for step = 1, 3 do
    local _, next_state = stop:decide({ step = step, stage = "x", begun = 0 }, state)
    state = next_state or state
  end
end }
