--- `run` and `student` as a console in a running trainer sees them: what can be read, what can be changed, what can be
--- asked.
local changes = require "perigee.train.changes"
local core = require "perigee.core.ffi"
local limit = require "perigee.sandbox.limit"
local module = require "perigee.nn.module"
local optim = require "perigee.optim"
local policy = require "perigee.record.policy"
local sandbox = require "perigee.console.sandbox"
local schedules = require "perigee.schedules"
local stops = require "perigee.stops"
local tensor = require "perigee.core.tensor"

local M = {}

--- A copy of a tensor, as it is now.
local function snapshot(t) return sandbox.wrap(t:clone()) end

--- A model read-only: its fields, its parameters as snapshots of their masters.
local function view(node, name, master)
  local keys = {}
  for key, value in next, node do
    local kind = type(value)
    if kind == "number" or kind == "string" or kind == "boolean" or tensor.is_tensor(value)
      or (kind == "table" and (getmetatable(value) == nil or module.is_module(value))) then
      keys[key] = true
    end
  end
  local get = {}
  for key in pairs(keys) do
    get[key] = function()
      local value = rawget(node, key)
      if type(value) ~= "table" then return value end
      if tensor.is_tensor(value) then return snapshot(master(rawget(value, "name")) or value) end
      return view(value, ("%s.%s"):format(name, key), master)
    end
  end
  return sandbox.record { name = name, get = get, length = function() return #node end,
    text = module.is_module(node) and function() return tostring(node) end or nil }
end

function M.student(run)
  return view(run.recipe.student, "student", function(name) return name and run:tensors()["student." .. name] end)
end

--- A value that was typed in, as the log holds it.
local function plain(value) return schedules.plain(sandbox.unwrap(value)) end

local function loss_record(run, text, name)
  local function entry() return run.stage.losses[name] or core.fail("the stage has no loss '%s' any more", name) end
  return sandbox.record {
    name = "run.stage.losses." .. name,
    get = { name = function() return name end,
      weight = function() return schedules.value(entry().weight, run.step + 1) end,
      kind = function() return entry().loss.kind end,
            value = function() return run.losses[name] end },
    set = { weight = function(value)
      changes.make(run, ("stage.losses.%s.weight"):format(name), plain(value), text())
    end },
    text = function()
      return ("%s·%s, now %s"):format(schedules.text(entry().weight), name, tostring(run.losses[name]))
    end,
  }
end

local function losses_record(run, text)
  local get = {}
  for _, entry in ipairs(run.stage.losses) do
    get[entry.name] = function() return loss_record(run, text, entry.name) end
  end
  return sandbox.record {
    name = "run.stage.losses", get = get,
    text = function() return require("perigee.recipe.describe").losses(run.stage) end,
  }
end

local function stage_record(run, text, say)
  return sandbox.record {
    name = "run.stage",
    get = {
      name = function() return run.stage.name end, index = function() return run.stage.index end,
      losses = function() return losses_record(run, text) end,
      finish = function() return sandbox.wrap(run.stage.finish) end,
    },
    set = {
      finish = function(given)
        local stop = sandbox.unwrap(given)
        if not stops.is_stop(stop) then
          core.fail("run.stage.finish: expected a stop such as stop.at_step(1000), got a %s", type(given))
        end
        local recipe_finish = run.recipe.stages[run.stage.index].finish
        local as_text = stop == run.stage.finish and run.stage.finish_source or policy.write(stop, recipe_finish)
        changes.make(run, "stage.finish", as_text, text())
        local remark = run:remark_of_policy()
        if remark then say(("note: %s\n"):format(remark)) end
      end,
    },
    text = function() return require("perigee.recipe.describe").stage(run.stage) end,
  }
end

local function optim_record(run, text)
  local get, set = {}, {}
  for name in pairs(optim.changeable(run.optim)) do
    get[name] = function() return sandbox.wrap(schedules.value(run.optim[name], run.step + 1)) end
    set[name] = function(value) changes.make(run, "optim." .. name, plain(value), text()) end
  end
  return sandbox.record {
    name = "run.optim", get = get, set = set,
    text = function() return optim.describe(run.optim) end,
  }
end

local MOST_SAMPLES, MOST_STEPS = 256, 1000 -- of run:sample, where the recipe has no more

--- The run stands still while samples are drawn.
local function expect_few(run, options)
  local given = type(options) == "table" and options or {}
  for key, most in pairs { count = math.max(MOST_SAMPLES, run.recipe.sample.count),
    steps = math.max(MOST_STEPS, run.recipe.sample.steps or 0) } do
    if type(given[key]) == "number" and given[key] > most then
      core.fail("run:sample: %s = %g; a running trainer draws at most %d", key, given[key], most)
    end
  end
end

--- What `run` has in the REPL (console/session.lua) and not here.
local in_repl = {}
for _, name in ipairs { "batch", "loss", "train", "gradient", "tap", "picture", "attention", "enter" } do
  in_repl[name] = true
end

--- A run's name: that of its folder.
function M.name(run) return run.folder:match "([^/]+)/*$" or run.folder end

--- `run`. `text(bytes)` is the line under evaluation, which is about to write a file
--- of so many bytes, `save()` writes a checkpoint and returns its path, `say(text)` prints.
function M.run(run, text, save, say)
  local function method(name, body)
    return function(self, ...)
      if type(self) ~= "userdata" then core.fail("run.%s: call it as run:%s(...)", name, name) end
      return body(...)
    end
  end
  local methods = {
    --- Ends the stage now.
    finish_stage = function() changes.make(run, "finish_stage", nil, text()) end,
    --- Writes a checkpoint; returns its path.
    checkpoint = function() return limit.suspended(save) end,
    --- Draws samples with the moving averages; returns the picture's path.
    sample = function(options)
      expect_few(run, options)
      return limit.suspended(require("perigee.sampling.preview").save, run, sandbox.unwrap(options))
    end,
    --- Stands still between two steps.
    pause = function()
      if run.paused then return ("it is paused already, at step %d; run:resume() continues"):format(run.step) end
      run:log_first { event = "pause", step = run.step, text = text() }
      run:pause(true)
      return ("paused at step %d; run:resume() continues"):format(run.step)
    end,
    --- Goes on after run:pause().
    resume = function()
      if not run.paused then return ("it is not paused: step %d"):format(run.step) end
      run:log_first { event = "continue", step = run.step, text = text() }
      run:pause(false)
      return ("continues after step %d"):format(run.step)
    end,
    --- A copy of a tensor as it is now: run:parameter "student.blocks.1.mlp.hidden.weight"; `ema.` in front names its
    --- average.
    parameter = function(name) return snapshot(changes.tensor(run, name)) end,
    --- Names of the run's tensors that begin with a text, "student." unless told otherwise.
    parameters = function(prefix) return changes.names(run, prefix or "student.") end,
    --- Replaces a tensor: run:set(name, tensor).
    set = function(name, value)
      local given = sandbox.unwrap(value)
      changes.set(run, name, given, text(tensor.is_tensor(given) and 4 * given:numel() or 0))
    end,
  }
  local call = {}
  for name, body in pairs(methods) do call[name] = method(name, body) end
  return sandbox.record {
    name = "run",
    get = {
      step = function() return run.step end, name = function() return M.name(run) end,
      folder = function() return run.folder end, stage = function() return stage_record(run, text, say) end,
      optim = function() return optim_record(run, text) end, losses = function() return sandbox.wrap(run.losses) end,
      gradient_norm = function() return run.gradient_norm end,
      ema = function() return schedules.value(run.ema, run.step + 1) end,
      batch_size = function() return run.batch_size end, paused = function() return run.paused end,
    },
    set = { ema = function(value) changes.make(run, "ema", plain(value), text()) end },
    call = call,
    missing = function(key)
      return in_repl[key] and ("run:%s is there in the REPL, not in a running trainer: `perigee repl %s` opens the "
        .. "newest checkpoint"):format(key, run.folder)
    end,
    text = function()
      return ("run %s at step %d, stage %s%s"):format(M.name(run), run.step, run.stage.name,
        run.paused and ", paused" or "")
    end,
  }
end

return M
