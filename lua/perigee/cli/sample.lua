--- perigee sample: pictures from a trained run.
local M = {
  summary = "draw samples from a run",
  usage = "RUN|CHECKPOINT [options]",
  description = "Samples with the moving averages of a run's newest checkpoint (or of the given one) into a PNG\n"
    .. "grid, a folder of PNGs, an .npz for evaluators, or an .npy. Sample k depends on the seed and k alone. A\n"
    .. "folder or .npz that was interrupted is taken up again.",
}

function M.options()
  local list = {
    { name = "count", type = "integer", min = 1, help = "how many samples (default: the recipe's)" },
    { name = "out", type = "string",
      help = "FILE.png (a grid), FILE.npz, FILE.npy, or a folder (default: RUN/samples/sample.png, of latents .npy)" },
    { name = "columns", type = "integer", min = 1, help = "columns of a PNG grid" },
    { name = "device", type = "string", default = "cpu", help = "cpu or cuda" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  }
  for k, option in ipairs(require("perigee.recipe.sampling").command_options()) do table.insert(list, 3 + k, option) end
  for _, option in ipairs(require("perigee.sampling.decoder").run_options()) do list[#list + 1] = option end
  return list
end

function M.run(options)
  local core = require "perigee.core.ffi"
  local path = options[1] or error("perigee sample needs a run's folder or a checkpoint", 0)
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  core.check(core.C.pg_signals_install())
  require("perigee.core.device").choose(options.device)
  local recipe, state, checkpoint, digest = require("perigee.sampling.restore").open(path,
    { ema = options.ema, device = options.device })
  if not recipe:flow_matching() then error(path .. ": its recipe trains no flow-matching student", 0) end
  local decode = require("perigee.sampling.decoder").of_command(options)
  local form = require("perigee.sampling.generate").form(recipe, decode)
  local out = options.out or checkpoint:match "^(.*)/checkpoints/[^/]+$" .. "/samples/sample"
    .. (form.pixels and ".png" or ".npy")
  local settings = require("perigee.recipe.sampling").from_command(options, recipe)
  local count, told = settings.count, require("perigee.base.tables").merged(settings,
    { step = state.step, ema = options.ema, recipe = recipe.name, weights = digest })
  told.count = nil
  if settings.guide then told.guide_weights = require("perigee.sampling.guide").digest(settings.guide) end
  require("perigee.sampling.decoder").tell(told, options, recipe, decode)
  local sink = require("perigee.sampling.sinks").open(out, form,
    { count = count, columns = options.columns, settings = told })

  local progress = require("perigee.record.progress").new { clock = core.C.pg_clock_seconds }
  local young = options.ema and require("perigee.sampling.averages").remark_of(state)
  if young then progress:line("%s", young) end
  local started, before = core.C.pg_clock_seconds(), sink.done
  if before > 0 then progress:line("%d samples are there already", before) end
  if before < count then
    settings.count = count - before
    local function show(done)
      local seconds = core.C.pg_clock_seconds() - started
      progress:step({ step = before + math.floor(done), last = count, stage = "sampling", losses = {},
        rate = done / seconds, batch = 1 }, false)
    end
    local how = { first = before, batch = options.batch, device = options.device, progress = show,
      decode = decode, tile = options.tile, pixels = options.pixels }
    require("perigee.sampling.generate").each(recipe, settings, how, function(first, images, labels)
      sink:take(first, images, labels)
      show(first + images.shape[1] - before)
      if core.C.pg_signals_pending() ~= 0 then error("interrupted; the same command continues from there", 0) end
    end)
  end
  require("perigee.sampling.restore").keep_choices()
  progress:line("%d samples of step %d: %s", count, state.step, sink:finish())
  return 0
end

return M
