--- perigee train: trains a recipe, stage by stage, into a run's folder.
local tables = require "perigee.base.tables"

local M = {
  summary = "train a recipe",
  usage = "RECIPE [options]",
  description = "Trains a recipe to its end, into RUNS/NAME. SIGINT and SIGTERM finish the step, save and stop;\n"
    .. "--resume continues.",
  recipe = true,
  options = {
    { "runs", "runs", "folder that holds the runs' folders" },
    { name = "name", type = "string", help = "name of this run's folder (default: the recipe's name)" },
    { name = "steps", type = "integer", help = "stop after this many steps of the run" },
    { name = "seed", type = "integer", help = "another seed than the recipe's" },
    { name = "device", type = "string", help = "cpu or cuda (default: the recipe's, else cpu)" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
    { name = "resume", type = "boolean", default = false, help = "continue from the newest checkpoint" },
    { name = "from", type = "string", value = "RUN|CHECKPOINT",
      help = "begin where that run stands or stood: its newest checkpoint, or the given one" },
    { name = "console", type = "boolean", default = true, help = "let `perigee attach` in",
      off = "don't let `perigee attach` in" },
    { name = "tensorboard", type = "boolean", default = false,
      help = "write losses, signals, samples and stages for TensorBoard too, into the run's folder" },
    { name = "quiet", type = "boolean", default = false, help = "print nothing but errors" },
  },
}

--- The command that continues an interrupted run.
local function resume_command()
  local line = "./perigee train"
  for k = 2, #arg do
    if arg[k] ~= "--resume" then
      line = line .. " " .. (arg[k]:match "^[%w%._/=,:%-]+$" and arg[k] or "'" .. arg[k]:gsub("'", "'\\''") .. "'")
    end
  end
  return line .. " --resume"
end

local KEPT = { "device", "seed", "threads", "console", "tensorboard" } -- of the command's options, for --resume

--- The part of a command line that decides how a run continues.
local function kept(said)
  local command = {}
  for _, name in ipairs(KEPT) do command[name] = said.command[name] end
  return { recipe = said.recipe, command = command }
end

--- --resume: what the calls before said; the folder is where they put it, whatever the recipe's name is with it.
function M.remembered(options, recipe)
  if not options.resume or not require("perigee.recipe").is_recipe(recipe) then return nil end
  local name = options.name or recipe.name
  local path = ("%s/%s"):format(options.runs, name)
  local files = require "perigee.io.files"
  require("perigee.io.owner").tell(path .. "/events.jsonl") -- it may hold policies
  local said = files.exists(path .. "/config.json") and require("perigee.record.config").read(path).command
  if not said then return nil end
  return { recipe = said.recipe, command = tables.merged(said.command or {}, { name = name }) }
end

function M.run(options)
  local core = require "perigee.core.ffi"
  local recipes = require "perigee.recipe"
  local recipe = options.recipe
  if not recipes.is_recipe(recipe) then
    error(("%s returns no recipe: its last line should be `return pg.recipe { ... }`"):format(options.recipe_path), 0)
  end
  local device = options.device or recipe.device
  require("perigee.core.device").choose(device)
  if options.seed then recipe.seed = options.seed end
  core.check(core.C.pg_threads_set(options.threads or recipe.threads or core.C.pg_threads()))
  core.check(core.C.pg_signals_install())
  local name = options.name or recipe.name
  local path = options.runs .. "/" .. name
  local preview = require "perigee.sampling.preview"
  preview.check(recipe)
  require("perigee.metrics.within").check(recipe)
  local run, outcome = require("perigee.train").train(recipe, {
    folder = path, steps = options.steps, device = device, resume = options.resume, from = options.from,
    quiet = options.quiet, tensorboard = options.tensorboard, recipe_path = options.recipe_path,
    recipe_options = tables.copy(options.recipe_options),
    said = kept(options.said),
    sample = preview.save, evaluate = require("perigee.metrics.within").evaluate,
    console = options.console and require("perigee.console.server").open or nil,
  })
  if outcome == "interrupted" then
    run:close_log()
    print(("stopped after step %d; continue with\n  %s"):format(run.step, resume_command()))
    return 0
  end
  if preview.is_possible(recipe) then
    local young = require("perigee.sampling.averages").remark(run.ema, run.step)
    if young then print(young) end
    local fine, result = xpcall(preview.save, require("perigee.base.failure").handler, run)
    print(fine and "samples: " .. result or "no samples: " .. tostring(result))
  end
  run:close_log()
  print(("run: %s (%d steps)"):format(path, run.step))
  return 0
end

return M
