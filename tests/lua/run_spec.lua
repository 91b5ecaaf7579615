-- A run's fields are declared in Run.new and written in train/run.lua alone.
local files = require "perigee.io.files"
local home = require("perigee.core.ffi").home
local sources = dofile(home .. "/tests/lua/sources.lua")
local Run = require "perigee.train.run"
local tiny = require "tests.lua.tiny"

--- The names of the fields that Run.new declares.
local function declared()
  local run, names = Run.new(tiny.recipe {}), {}
  for name in pairs(run) do names[name] = true end
  run:free()
  return names
end

--- Places of a text that write a run's field: `run.NAME = ` anywhere, or in a list at the beginning of a line.
local function writes(path, text, fields)
  local number, found = 0, {}
  local function note(owner, name)
    local of_run = owner == "run" or owner == "inner" or owner:match "%.run$" or owner:match "%.inner$"
    if of_run and fields[name] then found[#found + 1] = ("%s:%d writes %s"):format(path, number, name) end
  end
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    local code = line:gsub("%-%-.*", "")
    local several = code:match "^%s*([%w_%.]+%s*,[%w_%.,%s]-)=[^=]"
    for owner, name in (several or ""):gmatch "([%w_%.]+)%.([%a_]+)" do note(owner, name) end
    if not several then
      for owner, name in code:gmatch "([%w_%.]+)%.([%a_]+)%s*=[^=]" do note(owner, name) end
    end
  end
  return found
end

describe("a run", function()
  it("has its fields written in train/run.lua alone", function()
    local fields, found = declared(), {}
    assert.is_true(fields.step and fields.policy_state and fields.saved_step)
    for _, path in ipairs(sources(home .. "/lua/perigee")) do
      local name = path:sub(#home + 2)
      if name ~= "lua/perigee/train/run.lua" then
        for _, place in ipairs(writes(name, files.read(path), fields)) do found[#found + 1] = place end
      end
    end
    assert.same({}, found)
  end)

  it("finds a field that another file writes", function()
    local fields = { step = true, losses = true, gradient_norm = true }
    assert.same({ "x:1 writes step", "x:2 writes losses", "x:2 writes gradient_norm", "x:3 writes step" },
      writes("x", "run.step = 3\n  run.losses, run.gradient_norm = a, b\n  self.run.step = run.step + 1", fields))
    assert.same({}, writes("x", 'if run.step == 3 then log { step = run.step } end\nlocal a = run.step', fields))
  end)

  it("has no other fields", function()
    local run = Run.new(tiny.recipe {})
    for _, use in ipairs { function() run.stepp = 1 end, function() return run.stepp end } do
      local fine, message = pcall(use)
      assert.is_false(fine)
      assert.matches("a run has no field 'stepp'; Run.new declares them", message, 1, true)
    end
    run:free()
  end)
end)
