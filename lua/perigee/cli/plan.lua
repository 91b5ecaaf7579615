--- perigee plan: what a recipe would cost, without running it.
local M = {
  summary = "price a recipe without running it",
  usage = "RECIPE [options]",
  description = "Prints, for each stage, parameters, FLOPs, peak memory by purpose, and the roofline time of a step\n"
    .. "and of a reading of the gradient angle.\n"
    .. "Data and weights need not be there.",
  recipe = true,
  options = {
    { name = "device", type = "string", default = "cpu",
      help = "cpu or cuda (of this machine, measured), a100, h100 or h200" },
    { name = "json", type = "boolean", default = false, help = "print JSON" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  },
}

local size = require "perigee.base.size"

--- With which device's kernels the memory is planned.
local function kernels_text(planned_for, device)
  if planned_for == "cuda" then
    return "  kernels        CUDA's, on " .. require("perigee.core.device").description "cuda"
  end
  if device == "cpu" then return "  kernels        this processor's" end
  return "  kernels        this processor's; CUDA's, whose scratch differs, can't be asked here (perigee doctor says "
    .. "why)"
end

--- What this process may use, and whether the plan fits into it.
local function host_text(host, stages)
  local most = 0
  for _, stage in ipairs(stages) do most = math.max(most, stage.memory_total) end
  return ("  memory here    %s (%s), %s free%s"):format(size.text(host.total), host.whose, size.text(host.free),
    most > host.total and "; TOO LITTLE: it needs " .. size.text(most)
      or most > host.free and "; less than the " .. size.text(most) .. " that it needs" or "")
end

local function millions(n) return n and ("%.2f M"):format(n / 1e6) or "-" end

--- The line about the teacher's cache; without the data the number of images isn't known.
local function cache_text(cache)
  local each = ("%.1f KiB an image%s"):format(cache.record / 2 ^ 10,
    cache.images == 2 and ", as much for its mirror image" or "")
  if not cache.bytes then return "  teacher cache  " .. each end
  return ("  teacher cache  %.2f GiB (%s), filled once in %.3g s (roofline)"):format(cache.bytes / 2 ^ 30,
    each, cache.seconds)
end

--- The time that a reading of signals adds to the steps between two readings.
local function signal_text(probe, step)
  return ("  %-14s %.2f TFLOP, %.4g ms a reading (roofline); every %d steps it adds %.3g %%"):format(
    #probe.names == 1 and probe.names[1] or #probe.names .. " signals", probe.flops / 1e12, probe.seconds * 1e3,
    probe.every, probe.seconds / (probe.every * step) * 100)
end

--- Bytes that a run may take on a device: what is free on the one at hand, on others their memory, less the reserve.
local function room(device)
  local fits = require "perigee.cost.fits"
  local free = device == "cuda" and require("perigee.core.device").memory "cuda"
  local total = device == "cuda" and select(2, require("perigee.core.device").memory "cuda")
    or require("perigee.cost.machine").find(device).memory
  return (free or total) - fits.reserve(total)
end

--- The recipe as the device computes it, its stages priced, and on a GPU the ways that were priced, as lines.
local function priced(options)
  local recipe, on = options.recipe, { device = options.device }
  local pieces, price = require "perigee.cost.pieces", require "perigee.cost.price"
  if options.device == "cpu" then return recipe, price.recipe(recipe, on), {} end
  require("perigee.stage.parameters").check(recipe:validate())
  local free, lines = room(options.device), {}
  local best, tried = pieces.choose(recipe, free, options.device)
  local way = best or tried[#tried]
  for _, one in ipairs(tried) do
    lines[#lines + 1] = ("  %-14s %s, %.4g ms%s"):format(one == way and "batch" or "  or", pieces.text(recipe, one),
      one.stages[1].seconds * 1e3, one.bytes > free and "; TOO MUCH for the " .. size.text(free) .. " there" or "")
  end
  return recipe:with { micro = way.micro, recompute = way.recompute }, way.stages, lines
end

function M.run(options)
  local core = require "perigee.core.ffi"
  if not require("perigee.recipe").is_recipe(options.recipe) then
    error(options.recipe_path .. " returns no recipe", 0)
  end
  if options.threads then core.check(core.C.pg_threads_set(options.threads)) end
  core.C.pg_tf32_set(options.recipe.tf32 and 1 or 0)
  if options.device == "cuda" then
    local device = require "perigee.core.device"
    device.choose "cuda"
    device.expect_dtype("cuda", options.recipe.dtype)
  end
  if options.recipe.cache_teacher then -- how many images there are, if they are there
    pcall(options.recipe.data.open, options.recipe.data)
  end
  local price = require "perigee.cost.price"
  local recipe, stages, ways = priced(options)
  local cache = price.cache(recipe, { device = options.device })
  if options.json then
    local list = {}
    for k, s in ipairs(stages) do
      s.plan = nil
      list[k] = s
    end
    print(require("perigee.io.json").encode { recipe = recipe.name, batch = recipe.batch, micro = recipe.micro,
      recompute = recipe.recompute, precision = recipe.precision, stages = list, teacher_cache = cache })
    return 0
  end
  local printable = require "perigee.base.printable"
  printable.print(("%s: batch %d (in pieces of %d), %s"):format(recipe.name, recipe.batch, recipe.micro,
    recipe.precision))
  print(kernels_text(stages[1].planned_for, options.device))
  for _, line in ipairs(ways) do print(line) end
  if cache then print(cache_text(cache)) end
  if options.device == "cpu" then
    local host = require("perigee.core.limits").memory()
    if host then print(host_text(host, stages)) end
  end
  for _, s in ipairs(stages) do
    printable.print(("\nstage %s"):format(s.stage))
    local n = s.parameters
    print(("  parameters     student %s, projector %s, teacher %s%s"):format(millions(n.student), millions(n.projector),
      millions(n.teacher), n.frozen and "; frozen " .. millions(n.frozen) or ""))
    print(("  arithmetic     %.2f GFLOP an image, %.2f TFLOP a step, in %d calls"):format(s.flops_per_image / 1e9,
      s.flops / 1e12, s.calls))
    print(("  memory moved   %.2f GiB a step"):format(s.bytes_moved / 2 ^ 30))
    local parts, names = {}, {}
    for name in pairs(s.memory) do names[#names + 1] = name end
    table.sort(names, function(a, b) return s.memory[a] > s.memory[b] end)
    for _, name in ipairs(names) do
      if s.memory[name] > 0 then parts[#parts + 1] = ("%s %.1f"):format(name, s.memory[name] / 2 ^ 20) end
    end
    print(("  peak memory    %.1f MiB: %s"):format(s.memory_total / 2 ^ 20, table.concat(parts, ", ")))
    print(("  step time      %.4g ms, %.1f images/s (roofline, %s)"):format(s.seconds * 1e3,
      s.images_per_second, s.device))
    for _, probe in ipairs(s.signals) do print(signal_text(probe, s.seconds)) end
  end
  return 0
end

return M
