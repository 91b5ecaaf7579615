-- perigee watch: curves of blocks, and the page of a log.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"
local watch = require "perigee.compare.watch"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

describe("a curve of blocks", function()
  local function spark(steps, values, ...) return watch.spark({ steps = steps, values = values }, ...) end

  it("goes from its least to its greatest value", function()
    assert.equal("▁▃▅█", spark({ 0, 1, 2, 3 }, { 0, 3, 6, 10 }, 4, 4))
  end)
  it("shows means of parts, what was before where there is none, and nothing after its end", function()
    assert.equal("▁█▅   ", spark({ 0, 1, 2, 4 }, { 1, 2, 10, 5 }, 12, 6, 1, 9)) -- means 1.5 to 10 and 5
    assert.equal("▁▁▁█    ", spark({ 0, 3 }, { 0, 1 }, 8, 8))
  end)
  it("stays in the middle where nothing changes, and within given bounds", function()
    assert.equal("▅▅", spark({ 0, 1 }, { 3, 3 }, 2, 2))
    assert.equal("▁▅█", spark({ 0, 1, 2 }, { -5, 0, 1 }, 3, 3, -1, 1))
  end)
  it("of nothing is empty", function() assert.equal("    ", watch.spark(nil, 10, 4)) end)
end)

describe("perigee watch", function()
  local function run_of(name, events)
    files.make_folder(in_folder(name))
    files.write(in_folder(name .. "/config.json"), json.encode { name = name, batch = 4,
      stages = { { name = "align", finish = "never()" }, { name = "free", finish = "any(plateau, at_step(2000))" } } })
    local lines = {}
    for k, event in ipairs(events) do lines[k] = json.encode(event) .. "\n" end
    files.write(in_folder(name .. "/events.jsonl"), table.concat(lines))
    return in_folder(name)
  end

  it("prints where runs stand, and no byte that steers a terminal", function()
    local going = run_of("going", {
      { event = "stage", step = 0, stage = "align", policy = "p" },
      { event = "step", step = 400, steps = 1, losses = { denoise = 0.5 }, images_per_second = 8 },
      { event = "signal", step = 400, name = "stream_angle", value = { bins = { { from = 0, to = 0.5, mean = -0.25 },
        { from = 0.5, to = 1, mean = 0.25 } } } },
      { event = "stage", step = 500, stage = "free", from = "align", policy = "q", reason = "angle\27[2J below 0" },
      { event = "step", step = 1000, steps = 1, losses = { denoise = 0.25 }, images_per_second = 8 },
    })
    local ended = run_of("ended", { { event = "stage", step = 0, stage = "align", policy = "p" },
      { event = "end", step = 7, reason = "step 7 reached" } })
    local status, output = tiny.perigee(("watch A=%s %s"):format(going, ended))
    assert.equal(0, status, output)
    assert.is_nil(output:find("\27", 1, true))
    assert.truthy(output:find("A  step 1000/2000, stage free, 8 images/s, 8:20 left\n", 1, true))
    assert.truthy(output:find("  align ended at step 500: angle\\x1B[2J below 0\n", 1, true))
    assert.matches("\n  denoise +0.25 [^\n]*█", output)
    assert.matches("\n  stream_angle, 0 in the middle\n  t 0%-0.5 +%-0.25 [^\n]*▁", output)
    assert.truthy(output:find("\nended  step 7/2000, ended: step 7 reached\n", 1, true))
  end)

  it("fits a page", function()
    local record = require("perigee.compare.record").read(run_of("long", (function()
      local list = { { event = "stage", step = 0, stage = "align", policy = "p" } }
      local losses = {}
      for k = 1, 30 do losses["loss" .. k] = k end
      list[2] = { event = "step", step = 10, steps = 10, losses = losses, images_per_second = 1 }
      return list
    end)()))
    local lines = watch.lines({ record, record }, 60, 20)
    assert.is_true(#lines <= 19)
    for _, line in ipairs(lines) do assert.is_true(select(2, line:gsub("[^\128-\191]", "")) <= 60, line) end
  end)

  it("draws on a terminal until a signal comes", function()
    local going = run_of("going", { { event = "stage", step = 0, stage = "align", policy = "p" } })
    local pipe = io.popen(("timeout -s TERM 3 script -qec %s /dev/null 2>/dev/null"):format(
      tiny.quote(tiny.command("watch --every 0.2 " .. going))))
    local text = pipe:read "*a"
    pipe:close()
    assert.truthy(text:find("\27[2J\27[H", 1, true))
    assert.matches("\27%[H" .. "going  step 0", text)
  end)
end)
