--- perigee sample: pictures from a trained run.
local M = {
  summary = "draw samples from a run",
  usage = "RUN|CHECKPOINT [options]",
  description = "Samples with the moving averages of a run's newest checkpoint (or of the given one) into a PNG\n"
    .. "grid, a folder of PNGs, or an .npz for evaluators. Sample k depends on the seed and k alone. A\n"
    .. "folder or .npz that was interrupted is taken up again.",
}

function M.options()
  local list = {
    { name = "count", type = "integer", min = 1, help = "how many samples (default: the recipe's)" },
    { name = "out", type = "string",
      help = "FILE.png (a grid), FILE.npz, or a folder (default: RUN/samples/sample.png)" },
    { name = "columns", type = "integer", min = 1, help = "columns of a PNG grid" },
    { name = "device", type = "string", default = "cpu", help = "cpu or cuda" },
    { name = "threads", type = "integer", help = "processor threads (default: all cores)" },
  }
  for k, option in ipairs(require("perigee.recipe.sampling").command_options()) do table.insert(list, 3 + k, option) end
  return list
end

--- Where samples go: each sink has done (how many are there already), take(first, images, labels), finish().
local function png_grid(path, columns)
  local parts = {}
  return {
    done = 0,
    take = function(_, _, images) parts[#parts + 1] = images:clone() end,
    finish = function()
      local images = require("perigee.core.ops").concat(parts, 1)
      require("perigee.io.png").save(path, require("perigee.sampling.grid").join(images, columns))
      return path
    end,
  }
end

--- Writes the settings that decide the samples next to them; an interrupted set is only taken up by the same settings.
local function same_settings(path, settings)
  local json = require "perigee.io.json"
  local file = io.open(path, "r")
  local text = json.encode(settings) .. "\n"
  if not file then return require("perigee.io.files").write(path, text) end
  local before = file:read "*a"
  file:close()
  if before ~= text then
    error(("%s says that the samples there were made with other settings:\n  there %s  now   %sremove them or choose "
      .. "another --out"):format(
      path, before, text), 0)
  end
end

local function png_folder(path, settings)
  local lfs = require "lfs"
  require("perigee.io.files").make_folder(path)
  same_settings(path .. "/samples.json", settings)
  local function name(k) return ("%s/%06d.png"):format(path, k) end
  local done = 0
  while lfs.attributes(name(done), "mode") do done = done + 1 end
  return {
    done = done,
    take = function(_, first, images)
      for k = 1, images.shape[1] do require("perigee.io.png").save(name(first + k - 1), images:select(1, k)) end
    end,
    finish = function() return path end,
  }
end

local function npz(path, settings, shape)
  require("perigee.io.files").make_folder(path:match "^(.*)/[^/]+$" or ".")
  local lfs = require "lfs"
  if lfs.attributes(path, "mode") then error(path .. " is there already; remove it or choose another --out", 0) end
  same_settings(path .. ".json", settings)
  local writer = require("perigee.io.npz").writer(path, shape)
  return {
    done = writer.count,
    take = function(_, _, images) writer:append(images) end,
    finish = function()
      writer:finish()
      return path
    end,
  }
end

function M.run(options)
  local core = require "perigee.core.ffi"
  local path = options[1] or error("perigee sample needs a run's folder or a checkpoint", 0)
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  core.check(core.C.pg_signals_install())
  require("perigee.core.device").choose(options.device)
  local recipe, state, checkpoint = require("perigee.sampling.restore").open(path,
    { ema = options.ema, device = options.device })
  if not recipe:flow_matching() then error(path .. ": its recipe trains no flow-matching student", 0) end
  local out = options.out or checkpoint:match "^(.*)/checkpoints/[^/]+$" .. "/samples/sample.png"
  local settings = require("perigee.recipe.sampling").from_command(options, recipe)
  local count, sink = settings.count
  if out:match "%.png$" then
    require("perigee.io.files").make_folder(out:match "^(.*)/[^/]+$" or ".")
    sink = png_grid(out, options.columns)
  else
    local size = recipe.student.size
    local told = require("perigee.base.tables").merged(settings,
      { step = state.step, ema = options.ema, recipe = recipe.name })
    told.count = nil
    if out:match "%.npz$" then sink = npz(out, told, { size[1], size[2], 3 })
    else sink = png_folder(out, told) end
  end

  local progress = require("perigee.record.progress").new { clock = core.C.pg_clock_seconds }
  local started, before = core.C.pg_clock_seconds(), sink.done
  if before > 0 then progress:line("%d samples are there already", before) end
  if before < count then
    settings.count = count - before
    local function show(done)
      local seconds = core.C.pg_clock_seconds() - started
      progress:step({ step = before + math.floor(done), last = count, stage = "sampling", losses = {},
        rate = done / seconds, batch = 1 }, false)
    end
    local how = { first = before, batch = options.batch, device = options.device, progress = show }
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
