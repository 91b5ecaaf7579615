-- Policies asked over recorded runs, and `perigee replay`.
local expression = require "perigee.replay.expression"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local message_of = require("tests.lua.expect").message_of
local recorded = require "perigee.replay.recorded"
local replay = require "perigee.replay"
local signals = require "perigee.signals"
local tiny = require "tests.lua.tiny"

local home = require("perigee.core.ffi").home
local in_folder = dofile(home .. "/tests/lua/folder.lua")(before_each, after_each)

--- Writes a run's log: its stages and signals, step by step.
local function write_run(name, events, config)
  local lines = {}
  for k, event in ipairs(events) do lines[k] = json.encode(event) .. "\n" end
  files.make_folder(in_folder(name))
  files.write(in_folder(name .. "/events.jsonl"), table.concat(lines))
  if config then json.write(in_folder(name .. "/config.json"), config) end
  return recorded.read(in_folder(name))
end

-- the paper's readings (HASTE, arXiv 2505.16792, review thread): cosines at t = 0.02, 0.1, 0.5, 0.8
local paper = {
  { 50000, { -0.0174, 0.0126, 0.0134, 0.0034 } }, { 60000, { 0.0418, -0.0767, 0.0106, 0.0406 } },
  { 70000, { 0.0872, -0.0148, -0.0848, 0.1025 } }, { 80000, { -0.0032, -0.1155, -0.1272, -0.0212 } },
  { 90000, { 0.01, 0.02, 0.03, 0.04 } },
}

local function paper_run(name)
  local events = { { event = "stage", step = 0, stage = "align" } }
  for _, reading in ipairs(paper) do
    local mean = 0
    for _, cosine in ipairs(reading[2]) do mean = mean + cosine / 4 end
    events[#events + 1] = { event = "signal", step = reading[1], name = "gradient_angle",
      value = { mean = mean, cosine = reading[2], time = { 0.02, 0.1, 0.5, 0.8 }, images = 2048 } }
  end
  events[#events + 1] = { event = "stage", step = 100000, from = "align", stage = "free",
    reason = "step 100000 reached" }
  return write_run(name, events, { stages = { { name = "align", signals = {
    { name = "gradient_angle", kind = "gradient_angle", settings = { block = 5, images = 2048, from = 50000 } },
  } } } })
end

local function ask(run, text, stage)
  return replay.ask(run, run:stage(stage), (expression.stop(text)))
end

describe("a policy that is asked over a recorded run", function()
  it("ends the paper's at 80 thousand steps for -0.05, and tells why", function()
    local answer = ask(paper_run "paper", "stop.gradient_angle()")
    assert.same({ 80000, "gradient angle -0.0668 is below -0.05", 100000, 0 },
      { answer.step, answer.reason, answer.last, answer.missing })
    assert.equal(50000, ask(paper_run "paper", "stop.gradient_angle { below = 0.01 }").step)
    local never = ask(paper_run "paper", "stop.gradient_angle { below = -0.1 }")
    assert.same({ nil, 100000, 1 }, { never.step, never.last, never.missing }) -- no reading of step 100000
    assert.equal(75000, ask(paper_run "paper", "stop.any(stop.gradient_angle(), stop.at_step(75000))").step)
  end)

  it("counts the stage's own steps, and keeps its state from step to step", function()
    local run = write_run("two", { { event = "stage", step = 0, stage = "first" },
      { event = "signal", step = 4, name = "features", value = 3 }, { event = "stage", step = 10, stage = "second" },
      { event = "signal", step = 12, name = "features", value = 2 },
      { event = "signal", step = 14, name = "features", value = 1 },
      { event = "signal", step = 16, name = "features", value = 1 },
      { event = "signal", step = 18, name = "features", value = 1 }, { event = "end", step = 20, reason = "enough" } })
    assert.equal(13, ask(run, "stop.after(3)", "second").step)
    assert.equal(18, ask(run, "stop.plateau { loss = 'features', every = 2, patience = 2 }", "second").step)
    assert.is_nil(ask(run, "stop.at_step(11)", "first").step)
  end)

  it("gives the answer that it gave in the run", function()
    local function step_of(options, text)
      local run = tiny.train(options, { folder = in_folder "run", steps = 12 })
      assert.is_table(run)
      local read = recorded.read(in_folder "run")
      local stage = read:stage "align"
      local answer = ask(read, text, "align")
      assert.same({ stage.to, stage.reason }, { answer.step, answer.reason })
      assert.equal(0, answer.missing)
      files.remove_tree(in_folder "run")
      return answer.step
    end
    assert.equal(5, step_of({ align = 5, total = 12 }, "stop.any(stop.at_step(5))"))
    local angle = "stop.gradient_angle { block = 2, time = { 0.1, 0.5 }, images = 16, from = 2, every = 2, "
      .. "below = -1.5 }"
    assert.equal(6, step_of({ angle = true }, ("stop.any(%s, stop.at_step(6))"):format(angle)))
  end)

  it("takes losses from `step` events where they were not recorded as signals, and says so", function()
    local run = write_run("losses", { { event = "stage", step = 0, stage = "align" },
      { event = "step", step = 10, losses = { features = 1 } },
      { event = "step", step = 20, losses = { features = 2 } } })
    local answer = ask(run, "stop.custom { needs = { signal.loss { 'features', every = 10 } }, "
      .. "function(e, s) return (e.features or 0) > 1.5, s end }")
    assert.same({ 20, { "features" } }, { answer.step, answer.means })
  end)

  it("has the settings of a signal that is named after a loss", function()
    local config = json.decode(json.encode { stages = { { name = "align", signals = { { name = "denoise by time",
      settings = signals.loss_by_time({ "denoise", bins = 4, every = 2 }):named_settings() } } } } })
    assert.same({ ["1"] = "denoise", name = "denoise by time", bins = 4, from = 0, every = 2 },
      config.stages[1].signals[1].settings)
    local run = write_run("bins", { { event = "stage", step = 0, stage = "align" },
      { event = "signal", name = "denoise by time", step = 2, value = { mean = 1, count = 1 } } }, config)
    local plateau = "stop.plateau { of = signal.loss_by_time { 'denoise', bins = %d, every = 2 }, field = 'mean' }"
    assert.is_nil(ask(run, plateau:format(4)).step)
    assert.matches("was recorded with bins = 4; the policy reads it with 6", message_of(ask, run, plateau:format(6)))
  end)

  it("is told what the run lacks", function()
    local run = paper_run "paper"
    assert.matches("paper, stage align: signal 'gradient_angle' is recorded at steps 50000, 60000, 70000, %.%.%. "
      .. "90000, never when the policy reads it %(from step 7, every 10000%)",
      message_of(ask, run, "stop.gradient_angle { from = 7 }"))
    assert.matches("signal 'gradient_angle' was recorded with block = 5; the policy reads it with 2",
      message_of(ask, run, "stop.gradient_angle { block = 2 }"))
    assert.matches("did not record signal 'features', which the policy reads; to record it, give the stage signals = "
      .. "{ signal%.loss%(", message_of(ask, run, "stop.plateau { loss = 'features' }"))
    assert.matches("paper has no stage 'fre'; it has align, free; did you mean \"free\"",
      message_of(run.stage, run, "fre"))
  end)
end)

describe("perigee replay", function()
  it("prints a table of policies and runs, sweeps, and the spread over runs", function()
    paper_run "a"
    paper_run "b"
    local status, text = tiny.perigee(("replay %s two=%s --stop 'stop.gradient_angle { below = x }' --sweep "
      .. "x=-0.1:0:0.05 --json %s"):format(in_folder "a", in_folder "b", in_folder "answers.json"))
    assert.equal(0, status, text)
    assert.matches("a: stage align, steps 0 to 100000 recorded, ended: step 100000 reached", text)
    assert.matches("x = %-0%.1 +not by 100000 +not by 100000 +in none", text)
    assert.matches("x = %-0%.05 +80000 +80000 +80000 to 80000, median 80000", text)
    local answers = json.decode(files.read(in_folder "answers.json")).answers
    assert.same({ 6, 80000, -0.05 }, { #answers, answers[3].step, answers[3].value })
  end)

  it("says what is wrong in one line", function()
    paper_run "a"
    for arguments, message in pairs {
      [""] = "perigee replay needs runs' folders",
      ["@"] = "perigee replay needs a policy: --stop",
      ["@ --stop 3"] = "--stop '3': it is a number; expected a policy, such as",
      ["@ --stop 'stop.at_step('"] = "--stop 'stop.at_step(': ",
      ["@ --stop 'stp.at_step(3)'"] = "unknown name 'stp'; did you mean \"stop\"?",
      ["@ --stop 'pg.stop.at_stp(3)'"] = "did you mean \"at_step\"?",
      ["@ --stop 'stop.at_stp(3)'"] = "did you mean \"at_step\"?",
      ["@ --stop 'stop.at_step(3)' --sweep n=1:2:1"] = "does not use the name 'n'",
      ["@ --stop 'stop.at_step(n)' --sweep n"] = "--sweep n: it names no values; expected NAME=LOW:HIGH:STEP",
      ["@ --stop 'stop.at_step(n)' --sweep n=2:1:1"] = "the values must rise from LOW to HIGH",
      ["@ --stop 'stop.at_step(n)' --sweep n=1:2:1e-9"] = "the most are 1000",
      ["@ --stop 'stop.at_step(n)' --sweep n=1,x"] = "'x' is not a number",
      ["/nowhere --stop 'stop.at_step(3)'"] = "/nowhere is not a run: events.jsonl is missing",
    } do
      local status, text = tiny.perigee("replay " .. arguments:gsub("@", in_folder "a"))
      assert.equal(1, status, text)
      assert.truthy(text:find(message, 1, true), text)
      assert.falsy(text:find "traceback", text)
    end
  end)
end)
