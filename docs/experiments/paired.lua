--- Differences between runs that saw the same pictures with the same noise: a loss of each run minus that of the first,
--- step by step, as the mean over the steps that both logged and its standard error. What a batch's pictures and times
--- do to the loss is the same in both and drops out.
---
---   perigee run docs/experiments/paired.lua FIRST_STEP LOSS RUN RUN...
local Events = require "perigee.record.events"

local from, name = tonumber(arg[1]), arg[2]
if not from or #arg < 4 then error("usage: perigee run docs/experiments/paired.lua FIRST_STEP LOSS RUN RUN...", 0) end

--- The loss by step.
local function logged(run)
  local values = {}
  for _, event in ipairs(Events.read(run)) do
    if event.event == "step" and event.step >= from then values[event.step] = event.losses[name] end
  end
  return values
end

local first = logged(arg[3])
print(("| run | %s - %s | standard error | steps |\n|---|---|---|---|"):format(name, arg[3]))
for k = 4, #arg do
  local sum, square, count = 0, 0, 0
  for step, value in pairs(logged(arg[k])) do
    local difference = first[step] and value - first[step]
    if difference then sum, square, count = sum + difference, square + difference ^ 2, count + 1 end
  end
  if count < 2 then error(("%s and %s share no two steps with a loss '%s'"):format(arg[3], arg[k], name), 0) end
  local mean = sum / count
  local error_of_mean = math.sqrt(math.max(square / count - mean ^ 2, 0) / (count - 1))
  print(("| %s | %+.4f | %.4f | %d |"):format(arg[k], mean, error_of_mean, count))
end
