--- perigee fork: did stopping help? A second run from a checkpoint of the first, with the alignment dropped or kept.
local M = {
  summary = "continue a run from a step on with its alignment dropped, or kept",
  usage = "RUN --at STEP|decision --drop|--keep [options]",
  description = "Begins a second run at the newest checkpoint of RUN at or before the step, with the same data and\n"
    .. "noise. --drop ends the alignment after that step; --keep aligns on to the end. `decision` is the step\n"
    .. "at which RUN's alignment ended: `--at decision --keep` is what would have happened without it.\n\n"
    .. "  perigee fork runs/haste --at decision --keep\n"
    .. "  perigee compare runs/haste runs/haste-keep-1200",
  options = {
    { name = "at", type = "string", value = "STEP|decision", help = "where the two part" },
    { name = "drop", type = "boolean", default = false, help = "end the alignment after that step" },
    { name = "keep", type = "boolean", default = false, help = "align on to the end" },
    { name = "until", type = "integer", min = 1,
      help = "the fork's last step (default: RUN's last; what it has recorded)" },
    { name = "runs", type = "string", help = "folder that holds the fork's folder (default: where RUN is)" },
    { name = "name", type = "string", help = "name of the fork's folder (default: RUN-drop-STEP or RUN-keep-STEP)" },
    { name = "resume", type = "boolean", default = false, help = "continue this fork from its newest checkpoint" },
    { name = "device", type = "string", help = "cpu or cuda (default: the recipe's, else cpu)" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
    { name = "console", type = "boolean", default = true, help = "let `perigee attach` in",
      off = "don't let `perigee attach` in" },
    { name = "quiet", type = "boolean", default = false, help = "print nothing but errors" },
  },
}

--- The options that are checked before anything is read.
local function expect(options)
  if #options ~= 1 then error("perigee fork needs one run's folder: perigee fork " .. M.usage, 0) end
  if not options.at then error("--at is missing: a step, or 'decision'", 0) end
  if options.drop == options.keep then error("expected --drop or --keep, and not both", 0) end
end

--- Where the fork begins and what it trains: { recipe, options, from, at, begin, last }.
local function prepared(path, options)
  local fork = require "perigee.replay.fork"
  local restore = require "perigee.sampling.restore"
  local recorded = require("perigee.replay.recorded").read(path)
  local config = require("perigee.record.config").read(path)
  local recipe = restore.recipe(path)
  if config.seed then recipe.seed = config.seed end
  local stage = fork.stage(recipe, recorded)
  local at = fork.step(options.at, stage)
  local from, begin = fork.checkpoint(path, at, stage)
  local last = options["until"] or recorded.last
  if at >= last then
    error(("--at %d: the fork would end at step %d, where %s ends; give a later --until"):format(at, last, path), 0)
  end
  local forked = fork.recipe(recipe, { at = at, keep = options.keep, last = last })
  return { recipe = forked, options = config.options, from = from, at = at, begin = begin, last = last }
end

function M.run(options)
  expect(options)
  local core = require "perigee.core.ffi"
  local path = options[1]:gsub("(.)/+$", "%1")
  local made = prepared(path, options)
  local device = options.device or made.recipe.device
  require("perigee.core.device").choose(device)
  core.check(core.C.pg_threads_set(options.threads or made.recipe.threads or core.C.pg_threads()))
  core.check(core.C.pg_signals_install())
  local parent, own = path:match "^(.*)/([^/]+)$"
  local name = options.name or ("%s-%s-%d"):format(own or path, options.keep and "keep" or "drop", made.at)
  local folder = ("%s/%s"):format(options.runs or parent or ".", name)
  if not options.quiet then
    print(("%s from step %d on: the alignment %s, to step %d"):format(folder, made.begin,
      options.keep and "stays" or ("ends after step %d"):format(made.at), made.last))
  end
  local run, outcome = require("perigee.train").train(made.recipe, {
    folder = folder, device = device, resume = options.resume, from = made.from, quiet = options.quiet,
    recipe_path = path .. "/recipe.lua", recipe_options = made.options,
    console = options.console and require("perigee.console.server").open or nil,
  })
  run:close_log()
  if outcome == "interrupted" then print(("stopped after step %d; --resume continues"):format(run.step)) end
  print(("run: %s (%d steps); side by side: ./perigee compare %s %s"):format(folder, run.step, path, folder))
  return 0
end

return M
