--- perigee eval: how near a run's samples are to pictures that it did not see; how often a classifier is right about
--- them; the numbers that papers give, of runs and of files of samples.
local M = {
  summary = "FID and its relatives; distances on other features; a classifier's accuracy",
  usage = "RUN|CHECKPOINT|SAMPLES... [options]",
  description = "With --inception: FID, sFID, Inception score, precision and recall as the ADM evaluator computes\n"
    .. "them, and the kernel distance, of each run's samples, or of SAMPLES (.npz, .npy, a folder or an archive\n"
    .. "of pictures), against --reference. What was interrupted is taken up again. Without it: the Fréchet\n"
    .. "distance of each run's samples to pictures that training did not see, on the features of one encoder or\n"
    .. "several; of a run that trains a classifier, its accuracy. Results are also written into events.jsonl.",
}

function M.options()
  local conventions = require("perigee.models.inception").inception.conventions
  local list = {
    { name = "count", type = "integer", min = 2,
      help = "samples of each run (default: 2000; with --inception 50000), pictures of SAMPLES (all)" },
    { name = "inception", type = "string", value = "FILE",
      help = "FID's network: classify_image_graph_def.pb or weights-inception-2015-12-05-6726825d.pth" },
    { name = "encoder", type = "string", value = "MODEL:FILE",
      help = "another network in its place: FD-DINOv2 by dinov2_vit_l_14:FILE" },
    { name = "reference", type = "string", value = "REF",
      help = "an .npz as VIRTUAL_imagenet256_labeled.npz, or pictures as SAMPLES; needs one of these" },
    { name = "convention", type = "choice", default = "adm", choices = conventions,
      help = "how pictures are resized and scaled for the network" },
    { name = "distances", type = "choice", default = "float16", choices = { "float16", "float32" },
      help = "of precision and recall: float16, as the ADM evaluator's, or float32" },
    { name = "make_reference", type = "string", value = "PICTURES",
      help = "write the reference of these pictures to OUT.npz: perigee eval --make-reference PICTURES OUT.npz" },
    { name = "features", type = "list", value = "JUDGE",
      help = "teacher, or teacher:NAME of several; a run that trained a classifier; MODEL:WEIGHTS; may be repeated" },
    { name = "against", type = "string", value = "DATA",
      help = "test (the recipe's, the default), train, or a .npy file, uint8 [N,H,W,3]" },
    { name = "size", type = "integer",
      help = "side that judges' pictures are resized to; with --inception, that files are cropped to" },
    { name = "json", type = "boolean", default = false, help = "print JSON" },
    { name = "device", type = "string", default = "cpu", help = "where samples are drawn and judged: cpu or cuda" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  }
  local sampling = require("perigee.recipe.sampling").command_options()
  for k, option in ipairs(sampling) do table.insert(list, 10 + k, option) end
  for _, option in ipairs(require("perigee.sampling.decoder").run_options()) do table.insert(list, option) end
  return list
end

local printable = require "perigee.base.printable"

local function fail(format, ...) error(format:format(...), 0) end

-- ---- pictures ----------------------------------------------------------------------------------------------------

--- Pictures uint8 [n,H,W,3] and labels [n] of a data set: at most `count`, in its order or drawn.
local function pictures_of(data, count, drawn)
  data:open()
  local n = math.min(count or data.count, data.count)
  local loader = data:loader { batch = n, shuffle = drawn or false, flip = false, crop = 0, threads = 0, depth = 1 }
  local batch = loader:next()
  if not batch.images then
    fail("the data set '%s' has no pictures to compare with; give --against FILE.npy", data.name)
  end
  local images, labels = batch.images:clone(), batch.labels:clone()
  loader:close()
  return images, labels
end

--- The reference for samples: pictures, labels where they are known, and a name.
local function reference_of(against, recipe, run)
  if against and against:match "%.npy$" then
    local images = require("perigee.io.npy").load(against)
    if #images.shape ~= 4 or images.dtype ~= "uint8" or images.shape[4] ~= 3 then
      fail("--against %s: %s %s; expected uint8 [N,H,W,3]", against, images.dtype,
        require("perigee.core.ffi").shape_text(images.shape))
    end
    return images, nil, against:match "[^/]+$"
  end
  if against and against ~= "test" and against ~= "train" then
    fail("--against %s: expected test, train, or a .npy file", against)
  end
  local data = against == "train" and recipe.data or recipe.test
  if not data then fail("the recipe of %s names no `test` data; give --against train or a .npy file", run) end
  local images, labels = pictures_of(data)
  return images, labels, against == "train" and "training pictures" or "test pictures"
end

--- Samples of a run, uint8 [count,H,W,C], and how they were drawn, as text.
local function draw(run, settings, options, progress)
  local core = require "perigee.core.ffi"
  local started = core.C.pg_clock_seconds()
  local function show(done)
    progress:step({ step = math.floor(done), last = settings.count, stage = "sampling " .. run.name, losses = {},
                    rate = done / (core.C.pg_clock_seconds() - started), batch = 1 }, false)
    if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
  end
  local images = require("perigee.sampling.generate").all(run.recipe, settings,
    { batch = options.batch, device = options.device, progress = show })
  return images, require("perigee.recipe.sampling").describe(settings)
    .. (options.ema and "" or ", without averages")
end

-- ---- one run after the other ---------------------------------------------------------------------------------------

--- Every second row of features [N,D], from row `first`.
local function half(features, first)
  local n = math.floor(features.shape[1] / 2)
  return features:narrow(1, 1, 2 * n):reshape({ n, 2, features.shape[2] }):select(2, first):contiguous()
end

--- A judge with the reference's moments, and the distances that real pictures have: `halves` between two halves of the
--- reference, `training` between as many training pictures as there are samples and the reference.
local function with_reference(judge, reference, training)
  local frechet = require "perigee.metrics.frechet"
  local features = judge:features(reference)
  judge.reference = frechet.moments(features)
  judge.halves = frechet.distance(frechet.moments(half(features, 1)), frechet.moments(half(features, 2)))
  judge.half_count = math.floor(reference.shape[1] / 2)
  if training then
    judge.training = frechet.distance(judge.reference, frechet.moments(judge:features(training)))
    judge.training_count = training.shape[1]
  end
  return judge
end

--- A run's or a checkpoint's name, for the table.
local function name_of(path)
  return (path:gsub("/+$", ""):gsub("^.*/([^/]+)/checkpoints/([^/]+)%.safetensors$", "%1 %2"):match "[^/]+$")
end

local function open_run(path, options)
  local recipe, state, checkpoint = require("perigee.sampling.restore").open(path,
    { ema = options.ema, device = options.device })
  local young = options.ema and require("perigee.sampling.averages").remark_of(state)
  return { recipe = recipe, step = state.step, folder = checkpoint:match "^(.*)/checkpoints/[^/]+$", path = path,
    name = name_of(path), young = young }
end

local function record(run, event)
  return require("perigee.record.evaluation").record(run.folder, run.step, event)
end

--- A classifier: its accuracy.
local function accuracy(run, options)
  local images, labels, name = reference_of(options.against, run.recipe, run.path)
  if not labels then fail("--against %s: accuracy needs labels", options.against) end
  local right, loss = require("perigee.metrics.judge").classify(run.recipe.student, images, labels, options.device)
  return record(run, { name = "accuracy", accuracy = right, cross_entropy = loss, pictures = images.shape[1],
    against = name })
end

--- A student that samples: its distance on each judge's features.
local function distances(run, options, shared, progress)
  local frechet = require "perigee.metrics.frechet"
  local settings = require("perigee.recipe.sampling").from_command(options, run.recipe)
  local form = require("perigee.sampling.generate").form(run.recipe)
  if not form.pixels then
    fail("%s: its samples are latents [%s], and judges look at pictures; `perigee sample --out FILE.npz` writes the "
      .. "latents, for a decoder and an evaluator", run.path, table.concat(form.shape, ","))
  end
  if not shared.judges then
    local judges = {}
    for k, text in ipairs(options.features[1] and options.features or { "teacher" }) do
      judges[k] = require("perigee.metrics.judge").open(text, run.path,
        { size = options.size, device = options.device })
    end
    local images, _, name = reference_of(options.against, run.recipe, run.path)
    local data = run.recipe.data
    local training = options.against ~= "train" and data:open() and data.image_size == images.shape[2]
      and pictures_of(data, options.count, true) or nil
    shared.judges, shared.name, shared.count = {}, name, images.shape[1]
    for k, judge in ipairs(judges) do
      progress:line("features %s of %d %s", judge.name, images.shape[1], name)
      shared.judges[k] = with_reference(judge, images, training)
    end
  end
  if run.young then progress:line("%s: %s", run.name, run.young) end
  local images, how = draw(run, settings, options, progress)
  local list = {}
  for k, judge in ipairs(shared.judges) do
    local features = judge:features(images)
    local distance = frechet.distance(judge.reference, frechet.moments(features))
    local limit = frechet.extrapolate(judge.reference, features)
    list[k] = record(run, {
      name = judge.name, distance = distance, limit = limit, halves = judge.halves, training = judge.training,
      samples = ("%d: %s"):format(options.count, how), against = ("%d %s"):format(shared.count, shared.name),
      features = ("%s %dx%d, %d numbers"):format(judge.model.name, judge.size[1], judge.size[2], judge.model.width),
    })
    features:free()
  end
  images:free()
  return list
end

-- ---- what is printed ------------------------------------------------------------------------------------------------

local function number(x) return x and ("%.3f"):format(x) or "-" end

local function print_distances(rows, shared, options)
  local heads, lines = { "step" }, {}
  for _, judge in ipairs(shared.judges) do
    heads[#heads + 1] = judge.name
    heads[#heads + 1] = "N to infinity"
  end
  for k, row in ipairs(rows) do
    lines[k] = { name = row.run.name, ("%d"):format(row.run.step) }
    for _, event in ipairs(row.events) do
      lines[k][#lines[k] + 1] = number(event.distance)
      lines[k][#lines[k] + 1] = number(event.limit)
    end
  end
  local training, halves
  for _, judge in ipairs(shared.judges) do
    training = judge.training and (training or { name = ("%d training pictures"):format(judge.training_count), "" })
    halves = halves or { name = ("halves of %d of the reference"):format(judge.half_count), "" }
    for _, pair in ipairs { { training, judge.training }, { halves, judge.halves } } do
      if pair[1] then
        pair[1][#pair[1] + 1] = number(pair[2])
        pair[1][#pair[1] + 1] = ""
      end
    end
  end
  lines[#lines + 1] = training
  lines[#lines + 1] = halves
  printable.print(("Fréchet distance of %d samples from %d %s"):format(options.count, shared.count, shared.name))
  printable.print(table.concat(require("perigee.compare.table").lines(heads, lines, 120), "\n"))
  print "Both numbers of pictures are finite, so every distance is too large: the bias goes as 1/N. Compare equal"
  print "numbers only; 'N to infinity' takes the samples' share of it away (Chong and Forsyth 2020), the reference's"
  print "stays."
end

local COLUMNS = {
  { "FID", "fid", "%.4f" }, { "FD", "fd", "%.4f" }, { "sFID", "sfid", "%.4f" }, { "IS", "inception_score", "%.3f" },
  { "precision", "precision", "%.4f" }, { "recall", "recall", "%.4f" }, { "KID", "kid", "%.6f" },
}

--- Papers' numbers, a line for each run or file.
local function print_numbers(rows, options, against, network)
  local heads, lines = { "pictures" }, {}
  local columns = {}
  for _, column in ipairs(COLUMNS) do
    if rows[1].result[column[2]] then columns[#columns + 1] = column end
  end
  for k, column in ipairs(columns) do heads[k + 1] = column[1] end
  for r, row in ipairs(rows) do
    lines[r] = { name = row.path:gsub("/+$", ""):match "[^/]+$", ("%d"):format(row.result.count) }
    for k, column in ipairs(columns) do lines[r][k + 1] = column[3]:format(row.result[column[2]]) end
  end
  printable.print(("%s against %s%s"):format(network, against.name, against.points and
    ("; precision, recall and KID against %d pictures, distances in %s"):format(against.pictures, options.distances)
    or ""))
  printable.print(table.concat(require("perigee.compare.table").lines(heads, lines, 120), "\n"))
end

--- eval --inception.
local function run_inception(options)
  local rows, against, network = require("perigee.metrics.command").run(options)
  if not rows then return 0 end
  if options.json then
    for k, row in ipairs(rows) do rows[k] = { run = row.path, result = row.result } end
    print(require("perigee.io.json").encode(rows))
  else print_numbers(rows, options, against, network) end
  return 0
end

function M.run(options)
  local core = require "perigee.core.ffi"
  if options.make_reference or options.inception or options.encoder then return run_inception(options) end
  if not options[1] then error("perigee eval needs a run's folder or a checkpoint", 0) end
  if options.reference then fail "--reference needs --inception FILE, the weights of FID's network" end
  for _, path in ipairs(options) do
    if path:match "%.np[yz]$" then
      fail("%s: samples need --reference REF, and --inception FILE or --encoder MODEL:FILE", path)
    end
  end
  options.count = options.count or 2000
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  require("perigee.core.device").choose(options.device)
  core.check(core.C.pg_signals_install())
  local progress = require("perigee.record.progress").new { clock = core.C.pg_clock_seconds, quiet = options.json }
  local rows, shared, all = {}, {}, {}
  for _, path in ipairs(options) do
    local run = open_run(path, options)
    local student = run.recipe.student
    if run.recipe:flow_matching() then
      local events = distances(run, options, shared, progress)
      rows[#rows + 1] = { run = run, events = events }
      for _, event in ipairs(events) do all[#all + 1] = { run = path, result = event } end
    elseif student.classify and student.classes then
      local event = accuracy(run, options)
      all[#all + 1] = { run = path, result = event }
      progress:line("%s, step %d: %.1f %% of %d %s right, cross-entropy %.3f", run.name, run.step, event.accuracy * 100,
        event.pictures, event.against, event.cross_entropy)
    else
      fail("%s: its recipe trains neither a student that samples nor a classifier", path)
    end
    student:dematerialise()
  end
  progress:close()
  require("perigee.sampling.restore").keep_choices()
  if options.json then print(require("perigee.io.json").encode(all))
  elseif rows[1] then print_distances(rows, shared, options) end
  return 0
end

return M
