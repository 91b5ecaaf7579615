--- Changes to a run that is going. Each is checked, made, and written into the run's log with the text that did it and
--- the values before and after; a resumed run makes those again that came after its checkpoint, each at its step.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local limit = require "perigee.sandbox.limit"
local nearest = require "perigee.base.nearest"
local optim = require "perigee.optim"
local policy = require "perigee.record.policy"
local signals = require "perigee.signals"
local stops = require "perigee.stops"
local schedules = require "perigee.schedules"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

-- ---- policies ---------------------------------------------------------------------------------------------------

local function recipe_finish(run) return run.recipe.stages[run.stage.index].finish end

local function checked_finish(run, text)
  local stop = policy.read(text, recipe_finish(run))
  if not stops.is_stop(stop) then core.fail("run.stage.finish: expected a stop, got a %s", type(stop)) end
  -- what the stage cannot measure, and two signals of a name, are errors here and not at the next step
  for _, signal in ipairs(signals.of_stage(stop, run.stage.signals)) do signal:check(run.stage, run.recipe) end
  return { stop = stop, source = text ~= "recipe_finish" and text or nil }
end

local function set_finish(run, new)
  run:set_finish(new.stop, new.source)
  local remark = run:remark_of_policy()
  if remark then run.progress:line("note: %s", remark) end
end

-- ---- what can be changed: path -> { read(run), check(run, value) -> checked, write(run, checked) } ------------------

--- A number, or a schedule that schedules.plain wrote.
local function number(what, v, rule) return schedules.check(what, schedules.of(v), rule) end

local fixed = {
  ema = {
    read = function(run) return schedules.plain(run.ema) end,
    check = function(_, v) return number("run.ema", v, { "number", least = 0, below = 1 }) end,
    write = function(run, v) run:set_ema(v) end,
  },
  ["stage.finish"] = {
    read = function(run) return run.stage.finish_source or run.stage.finish.text end,
    check = checked_finish, write = set_finish,
  },
  finish_stage = {
    read = function(run) return run.stage.name end, check = function() end,
    write = function(run) run:ask_to_finish "finish_stage() at a console" end,
  },
}

local function optimiser(name)
  return {
    read = function(run)
      local value = schedules.plain(run.optim[name])
      return type(value) == "table" and tables.copy(value) or value
    end,
    check = function(run, v)
      local rule = optim.changeable(run.optim)[name]
        or core.fail("run.optim.%s cannot be changed while the run is going", name)
      if name == "lr" then return number("run.optim.lr", v, rule) end
      check.value("run.optim." .. name, v, rule)
      return type(v) == "table" and { unpack(v) } or v
    end,
    write = function(run, v) run.optim[name] = v end,
  }
end

local function weight(name)
  local function entry(run)
    return run.stage.losses[name] or core.fail("the stage '%s' has no loss '%s'", run.stage.name, name)
  end
  return {
    read = function(run) return schedules.plain(entry(run).weight) end,
    check = function(run, v)
      entry(run)
      return number(("the weight of '%s'"):format(name), v, { "number", least = 0 })
    end,
    write = function(run, v) entry(run).weight = v end,
  }
end

--- A tensor of the run by its checkpoint name: masters, moving averages ("ema."), moments ("optimizer.m.",
--- "optimizer.v.").
function M.tensor(run, name)
  local all = run:tensors()
  if all[name] then return all[name] end
  core.fail("the run has no tensor '%s'%s", tostring(name), nearest.hint(tostring(name), tables.sorted_keys(all)))
end

--- Names of the run's tensors that begin with a text, sorted.
---@return string[]
function M.names(run, prefix)
  local names = {}
  for name in pairs(run:tensors()) do
    if name:sub(1, #prefix) == prefix then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- The run's tensor of a name, whose values a tensor is to replace.
function M.check_tensor(run, name, value)
  local now = M.tensor(run, name)
  if not tensor.is_tensor(value) then core.fail("run:set: expected a tensor, got a %s", type(value)) end
  if core.shape_text(value.shape) ~= core.shape_text(now.shape) then
    core.fail("run:set: '%s' is %s, the new values are %s", name, core.shape_text(now.shape),
      core.shape_text(value.shape))
  end
  return now
end

local function summary(t)
  return tensor.tidy(function()
    local wide = t:to("cpu"):to "float64"
    return { shape = t.shape, mean = wide:mean():item(), norm = math.sqrt((wide * wide):sum():item()) }
  end)
end

local function parameter(name)
  return {
    read = function(run) return summary(M.tensor(run, name)) end,
    check = function(run, file) -- float32, in the run's folder
      if type(file) ~= "string" or not file:match "^[%w_][%w_/]*%.npy$" then
        core.fail("the values of '%s' are in no .npy file of the run's folder: %s", name, tostring(file))
      end
      local values = require("perigee.io.npy").load(run.folder .. "/" .. file)
      M.check_tensor(run, name, values)
      return values
    end,
    write = function(run, values)
      M.tensor(run, name):copy_(values)
      for _, group in ipairs(run.groups) do group:refresh() end
    end,
  }
end

local function target(path)
  local loss, name = path:match "^stage%.losses%.(.*)%.weight$", path:match "^tensor (.*)$"
  local setting = path:match "^optim%.(.*)$"
  return fixed[path] or (setting and optimiser(setting)) or (loss and weight(loss)) or (name and parameter(name))
    or core.fail("'%s' cannot be changed", path)
end

-- ---- making them ------------------------------------------------------------------------------------------------

--- Checked, logged, made: what is wrong or cannot be logged is not made.
local function make(run, change)
  local place = target(change.path)
  local before, new = place.read(run), place.check(run, change.value)
  local event = { event = "change", number = change.number, step = run.step, stage = run.stage.name,
    text = change.text, path = change.path, before = before, after = change.value == nil and true or change.value,
    again = change.again }
  limit.whole(function() -- a line's time may be over at any moment
    if change.again then run:log(event) else run:log_first(event) end -- one made again is in the log already
    place.write(run, new)
    run:mark_change(change.number)
  end)
end

--- Makes a change that a user asked for.
function M.make(run, path, value, text)
  local number_of_change = run.last_change + 1
  local fine, message = pcall(make, run, { path = path, value = value, text = text, number = number_of_change })
  if not fine then error(message, 0) end
  run:know_change(number_of_change)
  run.progress:line("step %d: changed by hand: %s", run.step, (text:gsub("\n.*", " ...")))
end

--- Replaces a tensor of the run: the values are kept in its folder, for --resume.
function M.set(run, name, value, text)
  M.check_tensor(run, name, value)
  local file = ("changes/%06d.npy"):format(run.last_change + 1)
  tensor.tidy(function()
    local values = value:to "float32"
    local zero = (values * 0):sum():item()
    if zero ~= zero then core.fail("run:set: the values for '%s' are not all finite", name) end
    require("perigee.io.files").make_folder(run.folder .. "/changes")
    require("perigee.io.npy").save(run.folder .. "/" .. file, values:contiguous())
  end)
  M.make(run, "tensor " .. name, file, text)
end

--- The changes in the log that a checkpoint of `run` does not hold, in order.
function M.pending(run)
  local done, by_number, list = {}, {}, {}
  if run.changes.step == run.step then
    for _, n in ipairs(run.changes) do done[n] = true end
  end
  for _, event in ipairs(require("perigee.record.events").read(run.folder)) do
    if event.event == "change" then
      if not (event.number and event.step and event.path and event.text) then
        error(("%s/events.jsonl: a change lacks its number, step, path or text; remove it"):format(run.folder), 0)
      end
      run:know_change(event.number)
      if event.step > run.step or (event.step == run.step and not done[event.number]) then
        by_number[event.number] = event
      end
    end
  end
  for _, event in pairs(by_number) do
    local value = event.after
    if event.path == "finish_stage" then value = nil end
    list[#list + 1] = { number = event.number, step = event.step, path = event.path, value = value,
      text = event.text, again = true }
  end
  table.sort(list, function(a, b)
    if a.step ~= b.step then return a.step < b.step end
    return a.number < b.number
  end)
  return list
end

--- Makes those of the changes `pending` again whose step has come, and takes them off the list.
function M.make_due(run, pending)
  while pending[1] and pending[1].step <= run.step do
    local change = table.remove(pending, 1)
    local fine, message = pcall(make, run, change)
    if not fine then
      error(("step %d: cannot make the change `%s` of the log again: %s"):format(run.step, change.text,
        tostring(message)), 0)
    end
    run.progress:line("step %d: made again: %s", run.step, change.text)
  end
end

return M
