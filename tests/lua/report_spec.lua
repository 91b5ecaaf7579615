-- perigee report: the page's data, that nothing in it can act as markup, and what a browser makes of it where one is
-- found (chromium).
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local tiny = require "tests.lua.tiny"

local in_folder = dofile(door.home .. "/tests/lua/folder.lua")(before_each, after_each)

local function run_of(name, config, events)
  files.make_folder(in_folder(name .. "/samples"))
  files.write(in_folder(name .. "/config.json"), json.encode(config))
  for _, step in ipairs { 100, 200, 300, 400, 500 } do
    require("perigee.io.png").save(in_folder(("%s/samples/step-%07d.png"):format(name, step)),
      require("perigee").zeros(2, 2, 3, { dtype = "uint8" }))
  end
  local lines = {}
  for k, event in ipairs(events) do lines[k] = json.encode(event) .. "\n" end
  files.write(in_folder(name .. "/events.jsonl"), table.concat(lines))
  return in_folder(name)
end

local function events()
  local list = {
    { event = "start", step = 0, recipe = "r", seed = 7 },
    { event = "stage", step = 0, stage = "align", policy = "p" },
  }
  for step = 1, 4000 do -- more than a line has points
    list[#list + 1] = { event = "step", step = step, steps = 1, losses = { denoise = 1 / step }, images_per_second = 8 }
  end
  for step = 100, 300, 100 do
    list[#list + 1] = { event = "signal", step = step, name = "stream_angle", value = { mean = 0.1, bins = {
      { from = 0, to = 0.5, mean = 0.3 - step / 1000, count = 4 }, { from = 0.5, to = 1, mean = 0.2, count = 4 } } } }
  end
  list[#list + 1] = { event = "stage", step = 2000, stage = "free", from = "align", policy = "q",
    reason = "</script><b>angle</b> below 0" }
  list[#list + 1] = { event = "change", step = 2500, number = 1, path = "optim.lr", text = "1e-4", before = 0.001,
    after = 0.0001, stage = "free" }
  return list
end

local function page_of(arguments)
  local out = in_folder "page.html"
  local status, output = tiny.perigee("report " .. arguments .. " --out " .. out)
  assert.equal(0, status, output)
  local text = files.read(out)
  return json.decode(text:match '<script id="data" type="application/json">(.-)</script>', "page"), text, out
end

describe("a report", function()
  it("holds what runs did, thinned and escaped", function()
    local a = run_of("a", { name = "r", batch = 4, lr = 1 }, events())
    local b = run_of("b", { name = "r", batch = 4, lr = 2 }, events())
    local data, text = page_of(("first=%s %s --samples 3 --no-plan"):format(a, b))
    assert.is_nil(text:match '<script id="data".-</script>':find("<b>", 1, true))
    assert.same({ "first", "b" }, { data.runs[1].label, data.runs[2].label })
    local stages = data.runs[1].stages
    assert.same({ "align", 0, 2000, "</script><b>angle</b> below 0" },
      { stages[1].name, stages[1].from, stages[1].to, stages[1].reason })
    assert.is_true(math.abs(stages[1].measured.images_per_second - 8) < 1e-9)
    assert.same({ 100, 300, 500 }, { data.runs[1].samples[1].step, data.runs[1].samples[2].step,
      data.runs[1].samples[3].step })
    assert.equal(5, data.runs[1].samples_there)
    local changes = {}
    for k, c in ipairs(data.runs[1].changes) do
      changes[k] = ("%d %s %s %s %s"):format(c.step, c.name, c.before, c.after, c.how)
    end
    assert.same({ "2500 optim.lr 0.001 0.0001 by hand" }, changes)
    local map = data.runs[1].maps[1]
    assert.same({ "stream_angle", "t 0 to 0.5", "t 0.5 to 1" }, { map.name, map.rows[1].label, map.rows[2].label })
    assert.equal(3, #map.rows[1].values)
    assert.is_true(math.abs(map.rows[1].values[3]) < 1e-12)
    for _, panel in ipairs(data.panels) do
      assert.is_nil(panel.name:find("bins", 1, true))
      if panel.name == "loss.denoise" then
        assert.equal(2, #panel.lines)
        assert.is_true(#panel.lines[1].values <= 1500)
        assert.equal(4000, panel.lines[1].steps[#panel.lines[1].steps])
        assert.is_true(math.abs(panel.lines[1].values[1] - (1 + 1 / 2 + 1 / 3) / 3) < 1e-9)
      end
    end
    assert.same({ "lr" }, { data.settings[1].name })
    assert.same({ "1", "2" }, data.settings[1].values)
  end)

  it("has the samples' very bytes", function()
    local a = run_of("a", { name = "r", batch = 4 }, events())
    local data = page_of(a .. " --samples 1 --no-plan")
    local pipe = io.popen("base64 -w0 " .. a .. "/samples/step-0000100.png")
    assert.equal(pipe:read "*a", data.runs[1].samples[1].png)
    pipe:close()
  end)

  it("sets the plan beside what was measured, or says why not", function()
    local status, output = tiny.perigee(("train tests/lua/recipes/tiny.lua --runs %s --name t --quiet --steps 2 "
      .. "--weights tests/oracle/fixtures/haste_teacher.weights.safetensors"):format(in_folder()))
    assert.equal(0, status, output)
    local data = page_of(in_folder "t")
    assert.is_true(data.runs[1].stages[1].planned.memory > 0)
    data = page_of(run_of("a", { name = "r", batch = 4 }, events()))
    assert.matches("recipe.lua is missing", data.runs[1].no_plan)
  end)

  it("is asked for of runs", function()
    local status, output = tiny.perigee("report " .. in_folder())
    assert.equal(1, status)
    assert.matches("is not a run: events.jsonl is missing", output)
  end)

  it("is drawn by a browser without an error", function()
    if os.execute "command -v chromium >/dev/null 2>&1" ~= 0 then
      pending "no chromium"
      return
    end
    local _, _, out = page_of(run_of("a", { name = "r", batch = 4 }, events()) .. " --no-plan")
    local pipe = io.popen(("HOME=%s timeout 120 chromium --headless --no-sandbox --disable-gpu "
      .. "--virtual-time-budget=5000 --dump-dom file://%s 2>/dev/null"):format(in_folder(), out))
    local dom = pipe:read "*a"
    pipe:close()
    assert.matches("Perigee %d", dom:sub(-400)) -- the last line of the script has run
    assert.matches('<path class="curve"', dom, 1, true)
    assert.truthy(dom:find("stream_angle", 1, true))
    assert.truthy(dom:find("&lt;/script&gt;&lt;b&gt;angle&lt;/b&gt; below 0", 1, true))
  end)
end)
