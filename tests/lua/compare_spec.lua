--- perigee compare: what is read of a run, what is said of several, and figures, read back pixel by pixel.
local curves = require "perigee.compare.curves"
local core = require "perigee.core.ffi"
local differences = require "perigee.record.differences"
local fails = require("tests.lua.expect").fails
local figure = require "perigee.plot.figure"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local metrics = require "perigee.compare.metrics"
local png = require "perigee.io.png"
local record = require "perigee.compare.record"
local report = require "perigee.compare.report"
local text_table = require "perigee.compare.table"
local ticks = require "perigee.plot.ticks"
local tiny = dofile(core.home .. "/tests/lua/tiny.lua")

local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function near(expected, found, within)
  assert.is_true(math.abs(expected - found) <= (within or 1e-9), ("%s is not %s"):format(found, expected))
end

--- A run of steps 10, 20, ... at 16 images each: denoise = 2 - step / 200, features until `stop`; 8 images a second
--- until there, then 16. `tail` follows the last event.
local function make_run(name, how)
  how = how or {}
  local stop, total = how.stop or 40, how.total or 100
  local lines = {}
  local function log(event) lines[#lines + 1] = json.encode(event) .. "\n" end
  log { event = "start", step = 0, seed = 0, threads = 2 }
  log { event = "stage", step = 0, stage = "align", parameters = 100 }
  for step = 10, total, 10 do
    local free = step > stop
    log { event = "step", step = step, stage = free and "free" or "align", gradient_norm = 1, lr = 1e-3,
          images_per_second = free and 16 or 8,
          losses = { denoise = 2 - step / 200 + (how.offset or 0), features = not free and -step / 100 or nil } }
    if step % 20 == 0 and not free then
      log { event = "signal", step = step, name = "angle",
            value = { mean = 0.5, cosine = { 0.1, -step / 100 }, time = { 0.2, 0.7 } } }
    end
    if step == stop then
      log { event = "stage", step = step, stage = "free", from = "align", reason = "features stopped", freed_mib = 3 }
    end
  end
  if how.distance then log { event = "eval", step = total, name = "frechet", value = how.distance, images = 2048 } end
  if not how.going then log { event = "end", step = total, reason = ("step %d reached"):format(total) } end
  files.make_folder(in_folder(name))
  files.write(in_folder(name) .. "/events.jsonl", table.concat(lines) .. (how.tail or ""))
  local config = { batch = 16, seed = how.seed or 0, optim = { lr = how.lr or 1e-3, betas = { 0.9, 0.99 } },
    stages = { { name = "align", finish = "at_step(" .. stop .. ")", losses = { { name = "denoise", weight = 1 } } },
               { name = "free", finish = "at_step(100)", losses = { { name = "denoise", weight = 1 } } } } }
  if how.teacher ~= false then config.teacher = { depth = 4, name = "vit" } end
  files.write(in_folder(name) .. "/config.json", json.encode(config))
  return in_folder(name)
end

describe("a recorded run", function()
  it("is curves by name, stages and their reasons", function()
    local run = record.read(make_run("haste", { distance = 12.5 }) .. "/")
    assert.equal("haste", run.label)
    assert.same({ 10, 20, 30, 40 }, run.series["loss.features"].steps)
    assert.same({ -0.1, -0.2, -0.3, -0.4 }, run.series["loss.features"].values)
    assert.same({ -0.2, -0.4 }, run.series["signal.angle.cosine[2]"].values)
    assert.same({ "t = 0.2", "t = 0.7" }, run.parts["signal.angle.cosine"])
    assert.is_nil(run.series["signal.angle.time[1]"])
    assert.same({ 12.5 }, run.series["eval.frechet"].values)
    assert.same({ 2048 }, run.series["eval.frechet.images"].values)
    assert.is_nil(run.series["start.seed"])
    assert.same({ { name = "align", from = 0, to = 40, reason = "features stopped" },
                  { name = "free", from = 40, to = 100, reason = "step 100 reached" } }, run.stages)
    assert.equal(100, run.last_step)
    assert.equal("step 100 reached", run.ended)
  end)

  it("may be going still, its last line cut short", function()
    local tail = '{"event":"step","step":70,"losses":{"den'
    local run = record.read(make_run("going", { going = true, total = 60, tail = tail }))
    assert.is_nil(run.ended)
    assert.equal(60, run.last_step)
    assert.equal(60, run.series["loss.denoise"].steps[6])
    assert.is_nil(run.series["loss.denoise"].steps[7])
    assert.same({ name = "free", from = 40 }, run.stages[2])
  end)

  it("reads lines of other kinds without harm, and changes made by hand in the order of their steps", function()
    local tail = '7\n[]\nnonsense\n{"event":"note"}\n{"event":"fork","step":20,"threads":2}\n'
      .. '{"event":"change","path":"optim.lr","step":25,"before":1,"after":2}\n'
      .. '{"event":"probe","step":30,"value":[1,2,3]}\n'
    local run = record.read(make_run("odd", { tail = tail }))
    assert.same({ 25 }, run.series["change.optim.lr.after"].steps)
    assert.is_nil(run.series["fork.threads"])
    assert.same({ 2 }, run.series["probe[2]"].values)
    assert.same({ "[1]", "[2]", "[3]" }, run.parts.probe)
    assert.equal(100, run.last_step)
  end)

  local CHANGES = '{"event":"change","number":1,"path":"optim.lr","stage":"align","step":25,"before":0.001,'
    .. '"after":0.002}\n'
    .. '{"event":"change","number":1,"path":"optim.lr","stage":"align","step":25,"before":0.001,"after":0.002,'
    .. '"again":true}\n{"event":"change","number":2,"path":"stage.losses.denoise.weight","stage":"free","step":45,'
    .. '"before":1,"after":-2}\n{"event":"change","number":3,"path":"finish_stage","stage":"free","step":90,'
    .. '"before":"free","after":true}\n{"event":"resume","step":60,"changed":[{"name":"optim.lr","before":"0.002",'
    .. '"after":"0.004"}]}\n{"event":"resume","step":70}\n'

  it("has what was changed by hand and at a resume, each once, in the report and marked in the figure", function()
    local run = record.read(make_run("changed", { tail = CHANGES }))
    local plain = record.read(make_run "plain")
    local text = table.concat(report.lines({ run, plain }, { last = 10, to = math.huge, width = 120 }), "\n")
    for _, line in ipairs { "Changed on the way, after these steps", "optim.lr +25: 0.001 to 0.002 %(by hand%),",
      "60: +%- *\n +0.002 to 0.004 %(at a resume%)", "stages.free.losses.denoise.weight +45: 1 to %-2 %(by hand%) +%-",
      "finish_stage +90: done %(by hand%)" } do assert.matches(line, text) end
    assert.is_nil(text:find("optim.lr.-optim.lr"))
    assert.is_nil(table.concat(report.lines({ plain }, { last = 10, to = 100, width = 120 })):find "Changed")
    local how = { from = 0, to = 80, smooth = 1, x = "step" }
    local drawn = curves.figure({ run }, metrics.select({ run }, { "loss.denoise" }), how)
    local marks = {}
    for k, mark in ipairs(drawn.panels[1].marks) do marks[k] = { mark.x, mark.dash and "changed" or "stage" } end
    assert.same({ { 40, "stage" }, { 25, "changed" }, { 45, "changed" }, { 60, "changed" } }, marks)
    assert.equal("setting changed", drawn.legend[3].label)
    assert.equal("stage ends", drawn.legend[2].label)
    assert.is_nil(curves.figure({ plain }, metrics.select({ plain }, {}), how).legend[3])
  end)

  --- The steps of each line of a metric's panel.
  local function lines_of(records, name, smooth)
    local how, found = { from = 0, to = math.huge, smooth = smooth or 1, x = "step" }, {}
    for k, line in ipairs(curves.figure(records, metrics.select(records, { name }), how).panels[1].lines) do
      found[k] = line.xs
    end
    table.sort(found, function(a, b) return a[1] < b[1] end)
    return found
  end

  it("is not drawn across gaps: a signal that was off, a loss of some stages, steps that the log lacks", function()
    local tail = {}
    local function log(event) tail[#tail + 1] = json.encode(event) .. "\n" end
    for _, step in ipairs { 5, 10, 15, 20, 75, 80, 85 } do
      log { event = "signal", step = step, name = "norm", value = 1 }
    end
    for _, step in ipairs { 1, 50, 100 } do log { event = "evaluation", step = step, name = "d", distance = 1 } end
    local run = record.read(make_run("gaps", { tail = table.concat(tail) }))
    assert.same({ { 5, 10, 15, 20 }, { 75, 80, 85 } }, lines_of({ run }, "signal.norm"))
    assert.equal(1, #lines_of({ run }, "loss.denoise"))
    assert.same({ { 1, 50, 100 } }, lines_of({ run }, "evaluation.d.distance"))
    local other = record.read(make_run("other", { tail = table.concat(tail) })) -- a seed of the same label
    run.label, other.label = "both", "both"
    assert.same({ { 5, 10, 15, 20 }, { 75, 80, 85 } }, lines_of({ run, other }, "signal.norm"))
  end)

  it("knows from newer logs which steps a mean is over", function()
    local path, lines = make_run "spans", {}
    for _, span in ipairs { { 10, 10 }, { 15, 5 }, { 20, 5 }, { 30, 10 }, { 60, 10 }, { 61, 1 }, { 70, 9 } } do
      lines[#lines + 1] = json.encode { event = "step", step = span[1], steps = span[2], losses = { denoise = 1 } }
    end
    files.write(path .. "/events.jsonl", table.concat(lines, "\n") .. "\n")
    local run = record.read(path)
    assert.same({ { 10, 15, 20, 30 }, { 60, 61, 70 } }, lines_of({ run }, "loss.denoise"))
    assert.is_nil(run.series["step.steps"])
  end)

  it("leaves out lines that are no events, and names them", function()
    local path, messages = make_run "odd", {}
    local before = select(2, files.read(path .. "/events.jsonl"):gsub("\n", ""))
    files.write(path .. "/events.jsonl", files.read(path .. "/events.jsonl") .. '7\n{"event":\n{"step":5}\n\n'
      .. '{"event":"probe","step":101,"value":3}\n{"event":"st')
    local run = record.read(path, nil, function(message) messages[#messages + 1] = message end)
    assert.same({ 3 }, run.series["probe"].values)
    for k, what in ipairs { "it is not an event", "expected a value", "it is not an event", "expected a value" } do
      assert.equal(("%s/events.jsonl: line %d is left out: %s"):format(path, before + k, what), messages[k])
    end
    assert.equal(4, #messages)
    local _, text = tiny.perigee("compare " .. tiny.quote(path))
    assert.is_truthy(text:find("note: " .. messages[1] .. "\n", 1, true), text)
  end)

  it("counts images and seconds", function()
    local run = record.read(make_run "haste")
    assert.equal(400, run:axis "images"(25))
    local seconds = run:axis "seconds" -- 640 images at 8 a second, then 960 at 16
    near(40, seconds(20))
    near(50, seconds(25))
    near(80, seconds(40))
    near(85, seconds(45))
    near(140, seconds(100))
    near(40, seconds(20)) -- going back
    local images, took = run:work(0, 100)
    assert.equal(1600, images)
    near(140, took)
    images, took = run:work(40, 100)
    assert.equal(960, images)
    near(60, took)
  end)

  it("is refused with its reason", function()
    fails(function() record.read(in_folder "none") end, "none is not a run: events.jsonl is missing")
    local path = make_run "broken"
    files.write(path .. "/config.json", "{")
    fails(function() record.read(path) end, "broken/config.json: line 1")
  end)

  it("is what training writes", function()
    tiny.train({ total = 8, align = 4, angle = true, checkpoint = 0 }, { folder = in_folder "tiny" })
    local run = record.read(in_folder "tiny")
    assert.same({ 2, 4, 6, 8 }, run.series["loss.denoise"].steps)
    assert.same({ 2, 4 }, run.series["loss.attention"].steps)
    assert.same({ 2, 4 }, run.series["signal.gradient_angle.cosine[2]"].steps)
    assert.same({ "t = 0.1", "t = 0.5" }, run.parts["signal.gradient_angle.cosine"])
    assert.equal(4, run.stages[1].to)
    assert.equal("step 8 reached", run.ended)
    assert.is_true(run.series["step.images_per_second"].values[1] > 0)
  end)
end)

describe("metrics", function()
  it("are found by name, by list and by what stands before", function()
    local runs = { record.read(make_run "a"), record.read(make_run("b", { distance = 3 })) }
    assert.same({ { name = "loss.denoise", series = { "loss.denoise" } } }, metrics.find(runs, "loss.denoise"))
    local cosine = metrics.find(runs, "signal.angle.cosine")[1]
    assert.same({ "signal.angle.cosine[1]", "signal.angle.cosine[2]" }, cosine.series)
    assert.same({ "t = 0.2", "t = 0.7" }, cosine.parts)
    assert.same({ "signal.angle.cosine[2]" }, metrics.find(runs, "signal.angle.cosine[2]")[1].series)
    local losses = metrics.find(runs, "loss")
    assert.same({ "loss.denoise", "loss.features" }, { losses[1].name, losses[2].name })
    assert.equal("eval.frechet", metrics.find(runs, "eval.frechet")[1].name)
    local both = metrics.select(runs, { "loss", "loss.denoise", "step.lr" })
    assert.equal(3, #both)
    local default = {}
    for k, metric in ipairs(metrics.select(runs, {})) do default[k] = metric.name end
    assert.same({ "loss.denoise", "loss.features", "signal.angle.cosine", "signal.angle.mean" }, default)
  end)

  it("of bins of noise levels are plotted when they are asked for, and told by their means", function()
    local event = { event = "signal", step = 90, name = "stream_angle",
      value = { mean = 0.25, bins = { { from = 0, to = 1, count = 7, mean = 0.5, error = 0.1 } } } }
    local run = record.read(make_run("binned", { tail = json.encode(event) .. "\n" }))
    local default = {}
    for k, metric in ipairs(metrics.select({ run }, { })) do default[k] = metric.name end
    assert.same({ "loss.denoise", "loss.features", "signal.angle.cosine", "signal.angle.mean",
      "signal.stream_angle.mean" }, default)
    assert.equal(6, #metrics.select({ run }, { "signal.stream_angle" }))
    local text = table.concat(report.lines({ run }, { last = 3, to = math.huge, width = 120 }), "\n")
    assert.matches("signal%.stream_angle%.bins%.1%.mean +0%.5 @90", text)
    for _, part in ipairs { "from", "to", "count", "error" } do
      assert.is_nil(text:find("stream_angle.bins.1." .. part, 1, true))
    end
  end)

  it("that no run has are answered with near ones", function()
    local runs = { record.read(make_run "a") }
    fails(function() metrics.find(runs, "loss.denosie") end, 'no run has "loss.denosie"; did you mean "loss.denoise"?')
    fails(function() metrics.find(runs, "cosine") end, 'did you mean "signal.angle.cosine"?')
    fails(function() metrics.find(runs, "zzz") end, 'no run has "zzz" (--list lists them)')
  end)

  it("call a list's elements by what the runs agree on", function()
    local a, b = record.read(make_run "a"), record.read(make_run "b")
    b.parts["signal.angle.cosine"] = { "t = 0.2", "t = 0.9", "t = 1" }
    assert.same({ "t = 0.2", "[2]", "t = 1" }, metrics.find({ a, b }, "signal.angle.cosine")[1].parts)
  end)
end)

describe("differences of configurations", function()
  it("are those alone, by the names of stages and losses", function()
    local function config(lr, finish, weight)
      return { seed = 1, optim = { lr = lr, betas = { 0.9, 0.99 } },
        stages = { { name = "align", finish = finish, losses = { { name = "features", weight = weight } } } } }
    end
    assert.same({}, differences.rows { config(1, "x", 1), config(1, "x", 1) })
    assert.same({ { name = "optim.lr", "0.001", "0.01" }, { name = "stages.align.finish", "x", "y" },
                  { name = "stages.align.losses.features.weight", "0.5", "1" } },
                differences.rows { config(1e-3, "x", 0.5), config(1e-2, "y", 1) })
  end)

  it("tell what a run lacks in one row", function()
    local with, without = { teacher = { depth = 4, width = 64 }, list = { 1, 2 } }, { list = { 1, 3 } }
    assert.same({ { name = "list", "[1, 2]", "[1, 3]", "[1, 3]" }, { name = "teacher", "yes", "-", "yes" },
                  { name = "teacher.depth", "4", "-", "5" } },
                differences.rows { with, without, { teacher = { depth = 5, width = 64 }, list = { 1, 3 } } })
    assert.same({ { name = "on", "false", "-" } }, differences.rows { { on = false }, {} })
    assert.same({ { name = "x", "1", "[1]" } }, differences.rows { { x = 1 }, { x = { 1 } } })
  end)
end)

describe("a table of text", function()
  it("aligns columns, wraps cells and continues below where it is too wide", function()
    local rows = { { name = "a", "1", "−22" }, { name = "long", "x", "y" } }
    assert.same({ "      one  two", "a     1    −22", "long  x    y" }, text_table.lines({ "one", "two" }, rows, 80))
    assert.same({ "      one", "a     1", "long  x", "", "      two", "a     −22", "long  y" },
                text_table.lines({ "one", "two" }, rows, 10))
    local wrapped = text_table.lines({ "h" }, { { name = "n", ("word "):rep(10) } }, 80)
    assert.same({ "   h", "n  word word word word word word word", "   word word word" }, wrapped)
  end)
end)

describe("the report", function()
  it("says what differs, how stages ended and where curves end", function()
    local plain = { stop = 20, lr = 0.01, offset = 1, distance = 7, total = 60, going = true, teacher = false }
    local runs = { record.read(make_run "haste"), record.read(make_run("plain", plain)) }
    local text = table.concat(report.lines(runs, { last = 3, to = math.huge, width = 120 }), "\n") .. "\n"
    local function has(line)
      assert.is_truthy(text:find("\n" .. line .. "\n", 1, true), line .. "\nis not in\n" .. text)
    end
    has "optim.lr             0.001        0.01"
    has "teacher              yes          -"
    has "haste: ended at step 100, 11.43 images/s"
    has "  stage align, steps 0 to 40: features stopped, 8 images/s"
    has "  stage free, steps 40 to 100: step 100 reached, 16 images/s"
    has "plain: no end logged, at step 60, 12 images/s"
    has "  stage free, steps 20 to 60: not ended, 16 images/s"
    has "At the end, mean of the last 3 logged"
    has "loss.denoise        1.55      2.75"
    has "loss.features       -0.3 @40  -0.15 @20"
    has "signal.angle.cosine, t = 0.7  -0.4 @40  -0.2 @20"
    has "eval.frechet                  -         7"
    assert.is_nil(text:find("betas", 1, true))
    assert.is_nil(text:find("seed", 1, true))
    assert.is_nil(text:find("step.lr", 1, true))
  end)
end)

describe("the report of runs that share a label", function()
  it("has a column for all of them: settings, means and ranges", function()
    local runs = { record.read(make_run("a", { distance = 4, seed = 0 }), "haste"),
                   record.read(make_run("b", { distance = 8, seed = 1, stop = 60 }), "haste"),
                   record.read(make_run("c", { distance = 9, seed = 1 }), "plain") }
    local text = table.concat(report.lines(runs, { last = 1, to = math.huge, width = 120 }), "\n") .. "\n"
    local function has(line)
      assert.is_truthy(text:find("\n" .. line .. "\n", 1, true), line .. "\nis not in\n" .. text)
    end
    has "                     haste                     plain"
    has "seed                 0, 1                      1"
    has "loss.denoise        1.5                            1.5"
    has "stages.align.finish  at_step(40), at_step(60)  at_step(40)"
    has "loss.features       -0.5 (-0.6 to -0.4) @40 to 60  -0.4 @40"
    has(("haste (%s): ended at step 100, 10 images/s"):format(in_folder "b"))
    assert.is_truthy(text:find("eval.frechet                  6 (4 to 8)                     9\n", 1, true), text)
  end)
end)

describe("smoothing", function()
  it("is the mean of those around, and leaves a straight line as it is", function()
    assert.same({ 1, 5, 2 }, curves.smooth({ 1, 5, 2 }, 1))
    near(4, curves.smooth({ 9, 1, 2, 9, 9, 9 }, 3)[2])
    near(6, curves.smooth({ 9, 1, 2, 9, 9, 0, 0, 0, 0, 0 }, 5)[3])
    local line = {}
    for k = 1, 20 do line[k] = 3 - 0.25 * k end
    local smoothed = curves.smooth(line, 9)
    for k = 1, 16 do near(line[k], smoothed[k]) end
    for k = 17, 20 do assert.is_nil(smoothed[k]) end
    local ends = curves.smooth({ 9, 1, 2, 9, 9, 0, 0, 0, 0, 6 }, 5)
    near(9, ends[1])
    near(4, ends[2])
    near(6 / 5, ends[8])
    assert.is_nil(ends[9])
    -- a window is at most half of the values
    assert.same(curves.smooth({ 5, 0, 1, 0, 0, 0 }, 3), curves.smooth({ 5, 0, 1, 0, 0, 0 }, 99))
  end)

  it("does not mix stages", function()
    local values = { 1, 1, 1, 1, 1, 1, 7, 7, 7, 7, 7, 7 }
    assert.same({ 1, 1, 1, 1, 1, nil, 7, 7, 7, 7, 7 }, curves.smooth(values, 3, { 7 }))
    near(3, curves.smooth(values, 3)[6])
  end)
end)

describe("ticks", function()
  local function linear(low, high, most)
    local found = ticks.linear(low, high, most)
    return table.concat(found.texts, " "), found.values
  end

  it("stand at round numbers", function()
    assert.equal("0 25 50 75 100", (linear(0, 100, 4)))
    assert.equal("−0.50 −0.25 0 0.25 0.50", (linear(-0.6, 0.55, 5)))
    assert.equal("0 10k 20k 30k 40k", (linear(0, 40000, 5)))
    assert.equal("0 0.5M 1.0M 1.5M", (linear(0, 1.6e6, 4)))
    assert.equal("0 1e−4 2e−4", (linear(0, 2.2e-4, 3)))
    local _, values = linear(0.93, 1.38, 6)
    for k, value in ipairs(values) do near(0.9 + 0.1 * k, value) end
  end)

  it("stand at powers of ten on a logarithmic axis, at round numbers within one", function()
    assert.equal("10⁻³ 0.01 0.1 1 10", table.concat(ticks.logarithmic(1e-3, 12, 6).texts, " "))
    assert.equal("0.2 0.5 1 2", table.concat(ticks.logarithmic(0.15, 3, 6).texts, " "))
    assert.equal("1.0 1.1 1.2 1.3", table.concat(ticks.logarithmic(0.96, 1.35, 5).texts, " "))
  end)
end)

-- figures, read back --------------------------------------------------------------------------------------------

local BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"

--- A picture with at(x, y): its colour in the pixel at x, y (from 0), as "#RRGGBB".
local function pixels(picture)
  local width, list = picture.shape[2], picture:reshape({ picture:numel() }):totable()
  return function(x, y)
    local at = 3 * (math.floor(y) * width + math.floor(x))
    return ("#%02X%02X%02X"):format(list[at + 1], list[at + 2], list[at + 3])
  end
end

--- Whether the colour is within a pixel of x, y.
local function has(at, x, y, colour)
  for dx = -1, 1 do
    for dy = -1, 1 do
      if at(x + dx, y + dy) == colour then return true end
    end
  end
  return false
end

local function column_has(at, x, frame, colour)
  for y = math.ceil(frame.top) + 1, math.floor(frame.bottom) - 2 do
    if has(at, x, y, colour) then return true end
  end
  return false
end

--- Draws one panel at a pixel a point. Returns at(x, y) and the panel's frame.
local function draw(panel, legend)
  panel.title, panel.x_label = panel.title or "loss", "step"
  local picture, frames = figure.draw { panels = { panel }, legend = legend, width = 600, scale = 1 }
  assert.same(600, picture.shape[2])
  return pixels(picture), frames[1], picture
end

describe("a figure", function()
  it("has a line's colour where its values lie, and white where they don't", function()
    local xs, ys = { 0, 50, 100 }, { 1, 3, 2 }
    local line = { xs = xs, ys = ys, stroke = { colour = BLUE, width = 3 } }
    local at, frame = draw { lines = { line }, x_range = { 0, 100 } }
    -- 5 % of air above and below the values
    near(0.9, frame.y[1])
    near(3.1, frame.y[2])
    local function x_of(x) return frame.left + x / 100 * (frame.right - frame.left) end
    local function y_of(y) return frame.bottom - (y - 0.9) / 2.2 * (frame.bottom - frame.top) end
    for _, point in ipairs { { 1, 1.04 }, { 25, 2 }, { 50, 3 - 0.01 }, { 75, 2.5 }, { 99, 2.02 } } do
      assert.is_true(has(at, x_of(point[1]), y_of(point[2]), BLUE), "the line at x = " .. point[1])
      assert.is_false(has(at, x_of(point[1]), y_of(point[2]) + 20, BLUE), "nothing below it at x = " .. point[1])
    end
  end)

  it("has axes with ticks at their values", function()
    local line = { xs = { 0, 100 }, ys = { 0, 10 }, stroke = { colour = BLUE } }
    local at, frame = draw { lines = { line }, x_range = { 0, 100 } }
    assert.same({ 0, 20, 40, 60, 80, 100 }, frame.x_ticks.values)
    local function dark(x, y) -- an axis drawn across pixels' borders is paler than its ink
      local red = tonumber(at(x, y):sub(2, 3), 16)
      return red < 200
    end
    for _, value in ipairs(frame.x_ticks.values) do
      local x = frame.left + value / 100 * (frame.right - frame.left)
      assert.is_true(dark(x, frame.bottom + 2) or dark(x - 1, frame.bottom + 2), "a tick at " .. value)
      assert.is_false(dark(x + 5, frame.bottom + 2))
    end
    assert.is_true(dark(frame.left, frame.top + 3) or dark(frame.left - 1, frame.top + 3))
  end)

  it("has logarithmic axes", function()
    local at, frame = draw { log = true, x_range = { 0, 2 },
      lines = { { xs = { 0, 1, 2 }, ys = { 1, 100, 10000 }, stroke = { colour = BLUE, width = 3 } } } }
    local middle = (frame.left + frame.right) / 2
    assert.is_true(has(at, middle, (frame.top + frame.bottom) / 2, BLUE))
    near(10 ^ -0.2, frame.y[1], 1e-6)
  end)

  it("marks where stages end, in each run's colour", function()
    local line = { xs = { 0, 100 }, ys = { 0, 0 }, stroke = { colour = "#CC79A7" } }
    local at, frame = draw { lines = { line }, x_range = { 0, 100 },
      marks = { { x = 25, colour = BLUE }, { x = 50, colour = ORANGE }, { x = 50, colour = GREEN } } }
    local function x_of(x) return frame.left + x / 100 * (frame.right - frame.left) end
    local function near_colour(x, colour) -- a mark between two pixels is a tint of its colour
      local wanted = { colour:match "#(%x%x)(%x%x)(%x%x)" }
      for y = math.ceil(frame.top), math.floor(frame.bottom) - 1 do
        for dx = -1, 1 do
          local found, off = { at(x_of(x) + dx, y):match "#(%x%x)(%x%x)(%x%x)" }, 0
          for c = 1, 3 do off = math.max(off, math.abs(tonumber(found[c], 16) - tonumber(wanted[c], 16))) end
          if off < 110 then return true end
        end
      end
      return false
    end
    assert.is_true(near_colour(25, BLUE))
    assert.is_false(near_colour(25, ORANGE))
    assert.is_true(near_colour(50, ORANGE))
    assert.is_true(near_colour(50, GREEN))
    assert.is_false(near_colour(40, BLUE))
  end)

  it("keeps lines within the axes, shows a single point, and survives a panel without values", function()
    local long = { xs = { 0, 50, 200 }, ys = { 1, 2, 1 }, stroke = { colour = BLUE, width = 3 } }
    local at, frame = draw { lines = { long }, x_range = { 100, 150 } }
    for x = 0, math.floor(frame.left) - 5 do assert.is_false(column_has(at, x, frame, BLUE)) end
    at, frame = draw { lines = { { xs = { 5 }, ys = { 7 }, stroke = { colour = ORANGE } } } }
    assert.is_true(has(at, (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2, ORANGE))
    assert.equal(7, (frame.y[1] + frame.y[2]) / 2)
    draw { lines = {} }
  end)

  it("has a legend with each colour, in rows where it is wide", function()
    local line = { xs = { 0, 1 }, ys = { 0, 1 }, stroke = { colour = "#000000" } }
    local legend = {}
    for k = 1, 8 do
      legend[k] = { label = ("a rather long name %d"):format(k), stroke = { colour = figure.palette[k], width = 3 } }
    end
    local at, frame, picture = draw({ lines = { line } }, legend)
    local found = {}
    for y = 0, math.floor(frame.head) do
      for x = 0, 599 do found[at(x, y)] = found[at(x, y)] or y end
    end
    for k = 1, 8 do assert.is_number(found[figure.palette[k]], "the legend's colour " .. k) end
    assert.is_true(found[figure.palette[6]] > found[figure.palette[1]] + 15) -- another row
    local _, without = draw { lines = { line } }
    assert.is_true(frame.top > without.top + 30)
    assert.is_true(picture.shape[1] > frame.bottom)
  end)
end)

describe("curves", function()
  local function figure_of(paths, wanted, how)
    local runs = {}
    for k, path in ipairs(paths) do runs[k] = record.read(path[1], path[2]) end
    local given = { from = 0, to = math.huge, smooth = 1, x = "step", log = false }
    for key, value in pairs(how or {}) do given[key] = value end
    return curves.figure(runs, metrics.select(runs, wanted), given)
  end

  it("have a colour a run, the same in each panel, and marks where stages end", function()
    local drawn = figure_of({ { make_run "a" }, { make_run("b", { stop = 60, offset = 1 }) } }, { "loss" })
    assert.equal(2, #drawn.panels)
    assert.same({ "a", "b", "stage ends" }, { drawn.legend[1].label, drawn.legend[2].label, drawn.legend[3].label })
    local panel = drawn.panels[2]
    assert.equal("loss.features", panel.title)
    -- the longer line lies behind
    assert.same({ ORANGE, BLUE }, { panel.lines[1].stroke.colour, panel.lines[2].stroke.colour })
    assert.equal(60, panel.lines[1].xs[#panel.lines[1].xs])
    assert.same({ { x = 40, colour = BLUE }, { x = 60, colour = ORANGE } }, panel.marks)
  end)

  it("are cut to steps after smoothing, with the raw values behind", function()
    local drawn = figure_of({ { make_run "a" } }, { "loss.denoise" }, { from = 20, to = 50, smooth = 3 })
    local raw, smooth = drawn.panels[1].lines[1], drawn.panels[1].lines[2]
    assert.same({ 20, 30, 40, 50 }, raw.xs)
    assert.same({ 20, 30, 50 }, smooth.xs) -- a stage ends at 40
    near(2 - 20 / 200, raw.ys[1])
    near(2 - 20 / 200, smooth.ys[1])
    assert.equal(0.25, raw.stroke.alpha)
    assert.equal(20, drawn.panels[1].x_range[1])
  end)

  it("are a line an element: by colour for one run, by dashes for few, in panels of their own for many", function()
    local paths = { { make_run "a" } }
    local one = figure_of(paths, { "signal.angle.cosine" })
    assert.equal(1, #one.panels)
    assert.same({ "t = 0.2", "t = 0.7" }, { one.panels[1].legend[1].label, one.panels[1].legend[2].label })
    assert.are_not.equal(one.panels[1].lines[1].stroke.colour, one.panels[1].lines[2].stroke.colour)
    for k = 2, 5 do paths[k] = { make_run("r" .. k) } end
    local few = figure_of({ paths[1], paths[2] }, { "signal.angle.cosine" })
    assert.equal(1, #few.panels)
    assert.equal(4, #few.panels[1].lines)
    assert.are_not.same(few.panels[1].legend[1].stroke.dash, few.panels[1].legend[2].stroke.dash)
    local many = figure_of(paths, { "signal.angle.cosine" })
    assert.equal(2, #many.panels)
    assert.equal("signal.angle.cosine, t = 0.7", many.panels[2].title)
    assert.equal(5, #many.panels[2].lines)
  end)

  it("are a mean and a band for runs of one label, at the steps that all of them have", function()
    local drawn = figure_of({ { make_run "a", "haste" }, { make_run("b", { offset = 0.4 }), "haste" },
                              { make_run("c", { offset = 0.2, total = 80 }), "haste" } }, { "loss.denoise" })
    assert.equal("haste (3 runs)", drawn.legend[1].label)
    local panel = drawn.panels[1]
    assert.equal(1, #panel.lines)
    assert.equal(8, #panel.lines[1].xs)
    near(1.95 + 0.2, panel.lines[1].ys[1])
    near(1.95, panel.bands[1].lows[1])
    near(2.35, panel.bands[1].highs[1])
  end)

  it("stay linear where a value is not above 0, and say so", function()
    local drawn, linear = figure_of({ { make_run "a" } }, { "loss" }, { log = true })
    assert.is_true(drawn.panels[1].log)
    assert.is_false(drawn.panels[2].log)
    assert.same({ "loss.features" }, linear)
  end)
end)

describe("perigee compare", function()
  local function compare(arguments) return tiny.perigee("compare " .. arguments) end
  local quote = tiny.quote

  it("prints and plots", function()
    local a, b, out = make_run "a", make_run("b", { stop = 60, offset = 0.5 }), in_folder "figures/losses.png"
    local status, text = compare(("%s later=%s --metric loss.denoise --out %s --width 640 --scale 1"):format(
      quote(a), quote(b), quote(out)))
    assert.equal(0, status, text)
    assert.is_truthy(text:find("stages.align.finish  at_step(40)  at_step(60)", 1, true), text)
    assert.is_truthy(text:find("later (" .. b .. "): ended at step 100", 1, true), text)
    assert.is_truthy(text:find("1 panel: " .. out, 1, true), text)
    local picture = png.load(out)
    assert.equal(640, picture.shape[2])
    local at, found = pixels(picture), {}
    for y = 0, picture.shape[1] - 1 do
      for x = 0, 639 do found[at(x, y)] = (found[at(x, y)] or 0) + 1 end
    end
    assert.is_true(found[BLUE] > 100 and found[ORANGE] > 100)
    assert.equal("#FFFFFF", at(2, 2))
    assert.same({ "losses.png" }, files.list(in_folder "figures"))
  end)

  it("lists metrics", function()
    local status, text = compare(quote(make_run "a") .. " " .. quote(make_run("b", { distance = 2 })) .. " --list")
    assert.equal(0, status)
    assert.is_truthy(text:find("signal.angle.cosine[1..2]  2   2\n", 1, true), text)
    assert.is_truthy(text:find("eval.frechet               -   1\n", 1, true), text)
  end)

  it("calls runs of one name by their paths", function()
    local a, b = make_run "x/run", make_run "y/run"
    local _, text = compare(quote(a) .. " " .. quote(b))
    assert.is_truthy(text:find(a .. ": ended", 1, true), text)
    assert.is_truthy(text:find(b .. ": ended", 1, true), text)
    assert.is_truthy(text:find("The configurations are the same.", 1, true), text)
  end)

  it("says what is wrong", function()
    local a = quote(make_run "a")
    for arguments, message in pairs {
      [""] = "needs runs' folders",
      [quote(in_folder "none")] = "none is not a run",
      [a .. " --metric loss.denoize --out x.png"] = 'did you mean "loss.denoise"?',
      [a .. " --metric loss"] = "--out is missing",
      [a .. " --out x.jpg"] = "--out x.jpg: expected FILE.png",
      [a .. " --steps 5"] = "--steps 5: expected A:B",
      [a .. " --steps 9:5"] = "--steps 9:5: expected A:B",
      [a .. " --steps 500:600 --out x.png"] = "--steps 500:600: no run has any of these metrics there; the runs' last "
        .. "steps are 100",
      [a .. " --x hours"] = "none of step, images, seconds",
    } do
      local status, text = compare(arguments)
      assert.equal(1, status)
      assert.is_truthy(text:find(message, 1, true), text)
      assert.is_nil(text:find("traceback", 1, true), text)
    end
  end)
end)
