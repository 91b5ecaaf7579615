--- perigee bench: how fast a recipe's step runs on this machine, and where its time goes.
local M = {
  summary = "measure a recipe's step, op by op",
  usage = "RECIPE [options]",
  description = "Runs steps of each stage from the recipe's start and prints their time, peak memory, and a table\n"
    .. "of ops with their floor: the longer of a call's arithmetic at the device's matmul rate and its\n"
    .. "traffic at its memory speed, both measured in the same run. On a GPU a call's time is its own\n"
    .. "clock's, one call after the other, outside of the graph that a step is. Nothing is saved.",
  recipe = true,
  options = {
    { name = "stage", type = "string", help = "measure this stage only (default: each)" },
    { name = "steps", type = "integer", default = 20, help = "steps timed" },
    { name = "warmup", type = "integer", default = 3, help = "steps before them" },
    { name = "profiled", type = "integer", default = 5, help = "steps with a clock around every call" },
    { name = "calls", type = "integer", default = 0, help = "list so many of the longest calls too" },
    { name = "synthetic", type = "boolean", default = false,
      help = "random data and teacher's weights: no file is needed" },
    { name = "json", type = "string", value = "FILE", help = "write all of it to a file" },
    { name = "device", type = "string", help = "cpu or cuda (default: the recipe's, else cpu)" },
    { name = "threads", type = "integer", help = "processor threads (default: all that this process may use)" },
  },
}

--- The longer of a call's arithmetic and its traffic, at the machine's rates.
local function floor_of(row, machine, dtype)
  local definition = require("perigee.core.op").defined[row.op]
  local rate = require("perigee.cost.machine").rate(machine, definition, dtype)
  return math.max(row.flops / rate, row.bytes / machine.bandwidth)
end

local SMALL = 0.001 -- of all calls together: ops below it share a line

--- Rows of one part and op together, the longest first.
local function grouped(rows, machine, dtype)
  local by, list = {}, {}
  for _, row in ipairs(rows) do
    local name = row.part == "student" and row.op or row.part .. ": " .. row.op
    local group = by[name]
    if not group then
      group = { name = name, op = row.op, part = row.part, calls = 0, seconds = 0, flops = 0, bytes = 0, floor = 0 }
      by[name], list[#list + 1] = group, group
    end
    group.calls = group.calls + 1
    for _, key in ipairs { "seconds", "flops", "bytes" } do group[key] = group[key] + row[key] end
    group.floor = group.floor + floor_of(row, machine, dtype)
  end
  table.sort(list, function(a, b) return a.seconds > b.seconds end)
  return list
end

local function sum(rows, key, test)
  local total = 0
  for _, row in ipairs(rows) do
    if not test or test(row) then total = total + row[key] end
  end
  return total
end

--- Everything about one stage.
local function measure(recipe, stage, options, machine, device)
  local profile = require "perigee.bench.profile"
  local run = profile.open(recipe, { device = device, synthetic = options.synthetic, stage = stage.index })
  profile.seconds(run, options.warmup)
  profile.reset_peaks(device)
  local seconds = profile.seconds(run, options.steps)
  local tensors, resident = profile.peaks(device)
  local rows, loader = profile.profile(run, options.profiled)
  local micro, recompute = run.micro, run.recipe.recompute
  run:free()
  local dtype = recipe.dtype
  local result = {
    stage = stage.name, micro = micro, recompute = recompute, ms = profile.quantile(seconds, 0.5) * 1e3,
    quartiles_ms = { profile.quantile(seconds, 0.25) * 1e3, profile.quantile(seconds, 0.75) * 1e3 },
    tensor_bytes = tensors, resident_bytes = resident, loader_ms = loader * 1e3, ops = grouped(rows, machine, dtype),
    floor_ms = 0, parts_ms = {},
  }
  result.images_per_second = recipe.batch / result.ms * 1e3
  for _, row in ipairs(rows) do
    result.floor_ms = result.floor_ms + floor_of(row, machine, dtype) * 1e3
    result.parts_ms[row.part] = (result.parts_ms[row.part] or 0) + row.seconds * 1e3
  end
  result.matmul_ms = sum(rows, "seconds", function(row) return row.op == "matmul" end) * 1e3
  return result, rows
end

local function print_group(g, total)
  print(("  %-40s %5d %9.3f %5.1f%% %9.3f %9.1f %9.1f %7.1f %5.0f%%"):format(g.name, g.calls, g.seconds * 1e3,
    g.seconds / total * 100, g.flops / 1e9, g.bytes / 1e6, g.flops / g.seconds / 1e9, g.bytes / g.seconds / 1e9,
    g.floor / g.seconds * 100))
end

local function print_ops(result, total)
  print(("  %-40s %5s %9s %6s %9s %9s %9s %7s %6s"):format("op", "calls", "ms", "share", "GFLOP", "MB", "GFLOP/s",
    "GB/s", "floor"))
  local rest = { calls = 0, seconds = 0, flops = 0, bytes = 0, floor = 0 }
  for _, g in ipairs(result.ops) do
    if g.seconds >= SMALL * total then print_group(g, total)
    else
      rest.count = (rest.count or 0) + 1
      for _, key in ipairs { "calls", "seconds", "flops", "bytes", "floor" } do rest[key] = rest[key] + g[key] end
    end
  end
  if rest.count then
    rest.name = ("%d others"):format(rest.count)
    print_group(rest, total)
  end
end

local function print_calls(rows, count)
  table.sort(rows, function(a, b) return a.seconds > b.seconds end)
  print "\n  longest calls"
  for k = 1, math.min(count, #rows) do
    local row = rows[k]
    print(("  %9.3f ms  %7.1f GFLOP/s  %6.1f GB/s  %-9s %s"):format(row.seconds * 1e3, row.flops / row.seconds / 1e9,
      row.bytes / row.seconds / 1e9, row.part, row.signature))
  end
end

local function print_stage(result, rows, options)
  local total = sum(rows, "seconds")
  print(("\nstage %s, in pieces of %d"):format(result.stage, result.micro))
  print(("  step           %.2f ms (quartiles %.2f to %.2f), %.1f images/s"):format(result.ms, result.quartiles_ms[1],
    result.quartiles_ms[2], result.images_per_second))
  print(("  peak memory    %.1f MiB of tensors%s"):format(result.tensor_bytes / 2 ^ 20, result.resident_bytes
    and (", %.1f MiB resident in all"):format(result.resident_bytes / 2 ^ 20) or ""))
  local parts = { ("loader %.2f"):format(result.loader_ms) }
  for _, name in ipairs { "student", "teacher", "projector", "alignment", "update" } do
    local ms = result.parts_ms[name]
    if ms then parts[#parts + 1] = ("%s %.2f"):format(name, ms) end
  end
  print(("  parts, ms      %s; matmuls %.2f (%.0f%% of the step)"):format(table.concat(parts, ", "), result.matmul_ms,
    result.matmul_ms / result.ms * 100))
  print(("  calls together %.2f ms; their floor %.2f ms, %.0f%% of the step"):format(total * 1e3, result.floor_ms,
    result.floor_ms / result.ms * 100))
  print_ops(result, total)
  if options.calls > 0 then print_calls(rows, options.calls) end
end

--- The cost of alignment in each stage with a teacher, as a share of the last stage without.
local function print_alignment(measured)
  local free = measured[#measured]
  if free.stage.needs_teacher then return end
  for k = 1, #measured - 1 do
    local m = measured[k]
    if m.stage.needs_teacher then
      local ms = require("perigee.bench.profile").alignment_seconds(m.rows, free.rows) * 1e3
      m.result.alignment_ms, m.result.alignment_share = ms, ms / free.result.ms
      print(("\nstage %s: alignment's own ops take %.2f ms, %.1f%% of a step of stage %s (the teacher and the "
        .. "projector not counted)")
        :format(m.stage.name, ms, ms / free.result.ms * 100, free.stage.name))
    end
  end
end

local function chosen_stages(recipe, name)
  if not name then return recipe.stages end
  local names = {}
  for k, stage in ipairs(recipe.stages) do
    if stage.name == name then return { stage } end
    names[k] = stage.name
  end
  error(("unknown stage '%s'; expected one of %s"):format(name, table.concat(names, ", ")), 0)
end

function M.run(options)
  local core = require "perigee.core.ffi"
  local ffi = require "ffi"
  local recipe = options.recipe
  if not require("perigee.recipe").is_recipe(recipe) then error(options.recipe_path .. " returns no recipe", 0) end
  if options.steps < 1 or options.profiled < 1 or options.warmup < 0 then
    core.fail("bench: --steps and --profiled are 1 or more, --warmup 0 or more")
  end
  local device = options.device or recipe.device
  require("perigee.core.device").choose(device)
  require("perigee.core.device").expect_dtype(device, recipe.dtype)
  core.check(core.C.pg_threads_set(options.threads or recipe.threads or core.C.pg_threads()))
  core.C.pg_tf32_set(recipe.tf32 and 1 or 0)
  local machine = require("perigee.cost.machine").find(device)
  print(("%s: batch %d, %s; %s, %s, %d thread%s%s"):format(recipe.name, recipe.batch, recipe.precision, machine.name,
    ffi.string(core.C.pg_cpu_isa()), machine.threads,
    machine.threads == 1 and "" or "s", options.synthetic and "; random data and teacher" or ""))
  print(("%s: matmul %.0f GFLOP/s, memory %.1f GB/s"):format(machine.processor and "this machine" or "this GPU",
    machine[recipe.dtype] / 1e9, machine.bandwidth / 1e9))
  local remark = require("perigee.core.device").remark(device, recipe.dtype)
  if remark then print(remark) end
  local measured, results = {}, {}
  for k, stage in ipairs(chosen_stages(recipe, options.stage)) do
    local result, rows = measure(recipe, stage, options, machine, device)
    print_stage(result, rows, options)
    measured[k], results[k] = { stage = stage, result = result, rows = rows }, result
  end
  print_alignment(measured)
  if options.json then
    require("perigee.io.json").write(options.json, {
      recipe = recipe.name, batch = recipe.batch, precision = recipe.precision, device = device, machine = machine.name,
      processor = ffi.string(core.C.pg_cpu_name()), threads = machine.threads,
      isa = ffi.string(core.C.pg_cpu_isa()), version = ffi.string(core.C.pg_version()), synthetic = options.synthetic,
      matmul_flops_per_second = machine[recipe.dtype], bytes_per_second = machine.bandwidth, stages = results,
    })
  end
  return 0
end

return M
