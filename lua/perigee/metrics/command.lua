--- `perigee eval --inception FILE`: the numbers that papers give, of runs and of files of samples, and references to
--- compare them with.
local core = require "perigee.core.ffi"
local decoder = require "perigee.sampling.decoder"
local evaluation = require "perigee.record.evaluation"
local feature_network = require "perigee.metrics.feature_network"
local files = require "perigee.io.files"
local five_numbers = require "perigee.metrics.five_numbers"
local picture_source = require "perigee.metrics.picture_source"
local progress = require "perigee.record.progress"
local reference = require "perigee.metrics.reference"
local restore = require "perigee.sampling.restore"
local run_source = require "perigee.metrics.run_source"
local sampling = require "perigee.recipe.sampling"

local M = {}

local COUNT = 50000 -- samples of a run

local function fail(format, ...) error(format:format(...), 0) end

--- A bar over pictures, whose network starts anywhere.
local function bar(shown, name, count)
  local started, before = core.C.pg_clock_seconds(), nil
  return function(done)
    if not before and done > 0 then shown:line("%s: %d pictures are there already", name, done) end
    before = before or done
    local seconds = math.max(core.C.pg_clock_seconds() - started, 1e-9)
    shown:step({ step = done, last = count, stage = "features of " .. name, losses = {},
      rate = (done - before) / seconds, batch = 1 }, false)
  end
end

-- ---- what is evaluated --------------------------------------------------------------------------------------------

--- Is a path a run's folder or a checkpoint, and not pictures?
local function is_run(path)
  if path:match "%.safetensors$" then return true end
  return files.kind(path) == "directory" and files.exists(path .. "/recipe.lua")
end

--- A run's samples. Returns the source and what the event says of them; the student is to be freed after use.
local function of_run(path, options, shown)
  local recipe, state, checkpoint, digest = restore.open(path, { ema = options.ema, device = options.device })
  if not recipe:flow_matching() then fail("%s: its recipe trains no student that samples", path) end
  local given = require("perigee.base.tables").merged(options, { count = options.count or COUNT })
  local settings = sampling.from_command(given, recipe)
  local young = options.ema and require("perigee.sampling.averages").remark_of(state)
  if young then shown:line("%s: %s", path, young) end
  local name = path:gsub("/+$", ""):match "[^/]+$"
  local decode, told = decoder.of_command(options), {}
  decoder.tell(told, options, recipe, decode)
  if settings.guide then told.guide_weights = require("perigee.sampling.guide").digest(settings.guide) end
  local source = run_source.of(recipe, settings, { name = name, weights = digest, told = told, batch = options.batch,
    device = options.device, decode = decode, tile = options.tile, pixels = options.pixels })
  return source, { recipe = recipe, folder = checkpoint:match "^(.*)/checkpoints/[^/]+$", step = state.step,
    how = sampling.describe(settings) .. (options.ema and "" or ", without averages") }
end

local function of_pictures(path, options)
  local source = picture_source.open(path, { size = options.size })
  return options.count and picture_source.first(source, options.count) or source
end

--- Evaluates one run or one file: the event.
local function evaluate(path, options, network, against, shown)
  local source, run
  if is_run(path) then source, run = of_run(path, options, shown) else source = of_pictures(path, options) end
  local set = network:features(source, bar(shown, source.name, source.count))
  local event = five_numbers.compare(network, set, against, { half = options.distances == "float16" })
  event.name, event.against = network.name, against.name
  event.distances = event.precision and options.distances or nil
  event.samples = ("%d: %s"):format(event.count, run and run.how or source.name)
  if run then
    evaluation.record(run.folder, run.step, event)
    run.recipe.student:dematerialise()
  end
  feature_network.forget(set)
  return event
end

-- ---- the command --------------------------------------------------------------------------------------------------

local function make_reference(options, network, shown)
  local out = options[1] or fail "--make-reference: expected perigee eval --make-reference PICTURES OUT.npz"
  if not out:match "%.npz$" then fail("%s: expected OUT.npz", out) end
  if files.exists(out) then fail("%s is there already; remove it or choose another name", out) end
  local source = of_pictures(options.make_reference, options)
  local kept = reference.make(network, source, out, bar(shown, source.name, source.count))
  shown:line("%s: statistics of %d pictures (%s), and %d of the pictures", out, source.count, network.name, kept)
end

---@class perigee.EvaluatedRow
---@field path string
---@field result perigee.FiveNumbers  and what the event says

--- The command; `options` are those of cli/eval.lua. Returns what was evaluated, in order, and against what; nothing
--- where a reference was made.
---@return perigee.EvaluatedRow[]?, perigee.EvaluationReference?, string?  # the third: the network's name
function M.run(options)
  local make = options.make_reference
  if not (options.inception or options.encoder) then
    fail "--make-reference needs --inception FILE, the weights of FID's network, or --encoder MODEL:FILE"
  elseif options.inception and options.encoder then
    fail "--inception and --encoder are two networks; give one of them"
  elseif options.encoder and options.convention ~= "adm" then
    fail "--convention is of --inception; another encoder prepares pictures in its own way"
  end
  if not make and not options[1] then error("perigee eval needs a run's folder, a checkpoint, or samples", 0) end
  if not make and not options.reference then
    fail "--inception and --encoder need --reference REF: statistics of real pictures in an .npz, or pictures"
  end
  if options.features[1] then fail "--features, --inception and --encoder are three comparisons; give one of them" end
  for _, path in ipairs(options) do
    if not make and not files.exists(path) then fail("%s: no run, checkpoint or samples there", path) end
  end
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  require("perigee.core.device").choose(options.device)
  core.check(core.C.pg_signals_install())
  local shown = progress.new { clock = core.C.pg_clock_seconds, quiet = options.json }
  local network = options.encoder and feature_network.encoder(options.encoder, { device = options.device })
    or feature_network.inception(options.inception, { convention = options.convention, device = options.device })
  if make then make_reference(options, network, shown) end
  local show, rows, against = nil, {}, nil
  if not make then
    against = reference.open(network, options.reference, function(done, count)
      show = show or bar(shown, options.reference, count)
      show(done)
    end)
    for k, path in ipairs(options) do
      rows[k] = { path = path, result = evaluate(path, options, network, against, shown) }
    end
  end
  shown:close()
  network:free()
  restore.keep_choices()
  if not make then return rows, against, network.name end
end

return M
