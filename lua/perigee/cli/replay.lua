--- perigee replay: when would another policy have ended a recorded run's stage?
local printable = require "perigee.base.printable"

local M = {
  summary = "say when other policies would have ended a recorded run's stage",
  usage = "[LABEL=]RUN... --stop 'EXPRESSION' [options]",
  description = "Asks policies over the signals that runs recorded, and prints when each would have ended the\n"
    .. "stage, and why. Nothing is trained. A policy can be asked if the run recorded the signals that it\n"
    .. "reads, whatever policy the run itself had; several runs (seeds) show the spread.\n\n"
    .. "  perigee replay runs/seed-* --sweep below=-0.1:0:0.02 \\\n"
    .. "    --stop 'stop.gradient_angle { block = 2, from = 100, every = 50, below = below }'",
  options = {
    { name = "stop", type = "list", value = "EXPRESSION", help = "a policy as a recipe writes it; may be repeated" },
    { name = "sweep", type = "string", value = "NAME=LOW:HIGH:STEP",
      help = "ask with each of these values of a name that the expressions use (or NAME=A,B,C)" },
    { name = "stage", type = "string", help = "the stage (default: each run's first)" },
    { name = "json", type = "string", value = "FILE", help = "write all answers to a file" },
  },
}

--- The policies to ask: { name =, stop =, value = }, one for each expression and value.
local function policies_of(options)
  local expression = require "perigee.replay.expression"
  local sweep, list = options.sweep and expression.sweep(options.sweep), {}
  for _, text in ipairs(options.stop) do
    for k = 1, sweep and #sweep.values or 1 do
      local value = sweep and sweep.values[k]
      local stop, used = expression.stop(text, sweep and sweep.name, value)
      if sweep and not used then
        error(("--sweep %s: the policy '%s' does not use the name '%s'; write it where its values belong"):format(
          options.sweep, text, sweep.name), 0)
      end
      local name = sweep and ("%s, %s = %.12g"):format(stop.text, sweep.name, value) or stop.text
      list[#list + 1] = { name = name, stop = stop, value = value, text = text }
    end
  end
  return list
end

local function read_runs(words)
  return require("perigee.compare.labels").read(words, require("perigee.replay.recorded").read)
end

local function print_stages(runs, stages)
  for k, run in ipairs(runs) do
    local stage = stages[k]
    printable.print(("%s: stage %s, steps %d to %d recorded, %s"):format(run.label, stage.name, stage.from,
      run:last_of(stage), stage.to and ("ended: %s"):format(stage.reason or "for no reason given") or "not ended"))
  end
end

local function notes_of(policies, answers, runs)
  local seen = {}
  local function note(...)
    local text = string.format(...)
    if not seen[text] then printable.print("note: " .. text) end
    seen[text] = true
  end
  for p, policy in ipairs(policies) do
    for k, run in ipairs(runs) do
      local answer = answers[p][k]
      if answer.missing > 0 then
        note("%s, %s: %d readings that the policy would have had are not recorded", run.label, policy.name,
          answer.missing)
      end
      for _, name in ipairs(answer.means) do
        note("%s: loss '%s' is taken from the log's `step` events; it was not recorded as a signal", run.label, name)
      end
    end
  end
end

local function cell(answer) return answer.step and tostring(answer.step) or ("not by %d"):format(answer.last) end

--- From the earliest to the latest step at which a policy fires, and the median; of all runs, or so many of them.
local function spread(answers)
  local steps = {}
  for _, answer in ipairs(answers) do steps[#steps + 1] = answer.step end
  table.sort(steps)
  if #steps == 0 then return "in none" end
  local text = ("%d to %d, median %g"):format(steps[1], steps[#steps],
    (steps[math.ceil(#steps / 2)] + steps[math.floor(#steps / 2) + 1]) / 2)
  return #steps == #answers and text or ("%s, in %d of %d"):format(text, #steps, #answers)
end

local function print_table(policies, answers, runs)
  local heads, rows = {}, {}
  for k, run in ipairs(runs) do heads[k] = run.label end
  heads[#heads + 1] = #runs > 1 and "spread" or "why"
  for p, policy in ipairs(policies) do
    rows[p] = { name = policy.name }
    for k in ipairs(runs) do rows[p][k] = cell(answers[p][k]) end
    rows[p][#runs + 1] = #runs > 1 and spread(answers[p]) or answers[p][1].reason or "-"
  end
  printable.print(table.concat(require("perigee.compare.table").lines(heads, rows, 120), "\n"))
end

local function write_json(path, policies, answers, runs, stages)
  local list = {}
  for p, policy in ipairs(policies) do
    for k, run in ipairs(runs) do
      local answer = answers[p][k]
      list[#list + 1] = { policy = policy.stop.text, expression = policy.text, value = policy.value, run = run.path,
        stage = stages[k].name, step = answer.step, reason = answer.reason, last = answer.last,
        missing = answer.missing, losses_from_step_events = answer.means }
    end
  end
  require("perigee.io.json").write(path, { answers = list })
end

function M.run(options)
  if #options == 0 then error("perigee replay needs runs' folders: perigee replay " .. M.usage, 0) end
  if #options.stop == 0 then
    error("perigee replay needs a policy: --stop 'stop.gradient_angle { block = 2, from = 100, every = 50 }'", 0)
  end
  local replay = require "perigee.replay"
  local policies, runs, stages, answers = policies_of(options), read_runs { unpack(options) }, {}, {}
  for k, run in ipairs(runs) do stages[k] = run:stage(options.stage) end
  for p, policy in ipairs(policies) do
    answers[p] = {}
    for k, run in ipairs(runs) do answers[p][k] = replay.ask(run, stages[k], policy.stop) end
  end
  print_stages(runs, stages)
  print ""
  print_table(policies, answers, runs)
  notes_of(policies, answers, runs)
  if options.json then write_json(options.json, policies, answers, runs, stages) end
  return 0
end

return M
