--- A step beside its matmuls alone at oneDNN's own threaded rate: every product of the stage's program is timed with
--- dnnl_sgemm at its shape, in the same run as the step, in turn; medians over the rounds. A product of two batches
--- (attention's among them) is timed matrix by matrix of an image.
---
---   perigee run tests/bench/step_matmuls.lua RECIPE STAGE [the recipe's options]     on random data
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local load = require("perigee.recipe.load").load
local onednn = require "tests.bench.onednn"
local profile = require "perigee.bench.profile"

local ROUNDS, STEPS = 7, 2
local LEAST = 1e9 -- FLOPs of a shape in a round, where the step has so many

local path, name = arg[1], arg[2]
if not name then error("usage: perigee run tests/bench/step_matmuls.lua RECIPE STAGE [the recipe's options]", 0) end
if not onednn.found then error("oneDNN (libdnnl) is not installed", 0) end
local recipe, stage = load(path, { arguments = { unpack(arg, 3) } }).value, nil
for _, s in ipairs(recipe.stages) do
  if s.name == name then stage = s end
end
if not stage then error(("there is no stage '%s'"):format(name), 0) end
local run = profile.open(recipe, { synthetic = true, stage = stage.index })
profile.seconds(run, 2)

-- ---- the products ----------------------------------------------------------------------------------------------

local products, by_key = {}, {} -- { kind, m, n, k, transpose_a, transpose_b, count }

local function add(kind, transpose_a, transpose_b, m, n, k, count)
  local key = ("%s %s %s %d %d %d"):format(kind, transpose_a, transpose_b, m, n, k)
  local product = by_key[key]
  if not product then
    product = { kind = kind, transpose_a = transpose_a, transpose_b = transpose_b, m = m, n = n, k = k,
      count = 0, times = {} }
    by_key[key], products[#products + 1] = product, product
  end
  product.count = product.count + count
end

local function last_two(shape, transposed)
  local rows, columns = shape[#shape - 1], shape[#shape]
  if transposed then return columns, rows end
  return rows, columns
end

local function numel(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

local function add_matmul(node)
  local ta, tb = node.attributes.transpose_a == 1, node.attributes.transpose_b == 1
  local a, b = node.inputs[1].shape, node.inputs[2].shape
  local m, k = last_two(a, ta)
  local _, n = last_two(b, tb)
  local batch = numel(node.outputs[1].shape) / (m * n)
  if #b == 2 and not ta then add("linear layers", ta, tb, m * batch, n, k, 1)
  else add("linear layers", ta, tb, m, n, k, batch) end
end

--- Products of one image's heads in an attention op, with the number of products between [N,d] and [N,d] or [N,N] and
--- [N,d].
local attention_products = { attention = { 1, 1 }, attention_backward = { 2, 3 },
  attention_aligned_backward = { 2, 3 } }

local function add_attention(node)
  local counts = attention_products[node.definition.name]
  if not counts then return end
  local s = node.qkv.shape -- [B,N,3,H,d]
  add("attention", false, true, s[2], s[2], s[5], counts[1] * s[1] * s[4])
  add("attention", false, false, s[2], s[5], s[2], counts[2] * s[1] * s[4])
end

for _, call in ipairs(run.plan.calls) do
  if call.node.definition.name == "matmul" then add_matmul(call.node) else add_attention(call.node) end
end

-- ---- the measurement -------------------------------------------------------------------------------------------

local largest = { 0, 0, 0 }
for _, p in ipairs(products) do
  largest = { math.max(largest[1], p.m * p.k), math.max(largest[2], p.k * p.n), math.max(largest[3], p.m * p.n) }
end
local a, b, c = onednn.random(largest[1]), onednn.random(largest[2]), ffi.new("float[?]", largest[3])

local function median(list) return profile.quantile(list, 0.5) end

local steps = {}
for round = 1, ROUNDS do
  for _, seconds in ipairs(profile.seconds(run, STEPS)) do steps[#steps + 1] = seconds end
  for _, p in ipairs(products) do
    local repeats = math.min(p.count, math.max(2, math.ceil(LEAST / (2 * p.m * p.n * p.k))))
    p.times[round] = onednn.seconds(function()
      for _ = 1, repeats do onednn.product(p.transpose_a, p.transpose_b, p.m, p.n, p.k, a, b, c) end
    end) / repeats
  end
end

local step, totals, flops = median(steps) * (recipe.micro / recipe.batch), {}, 0
table.sort(products, function(x, y) return median(x.times) * x.count > median(y.times) * y.count end)
print(("%s, stage %s, batch %d; oneDNN %s, %d threads, %s"):format(recipe.name, stage.name, recipe.micro,
  onednn.version(), core.C.pg_threads(), ffi.string(core.C.pg_cpu_name())))
for _, p in ipairs(products) do
  local seconds, work = median(p.times), 2 * p.m * p.n * p.k
  totals[p.kind] = (totals[p.kind] or 0) + seconds * p.count
  flops = flops + work * p.count
  print(("%-14s %5d x  %6d x %5d x %5d %s%s  %9.3f ms  %7.1f GFLOP/s"):format(p.kind, p.count, p.m, p.n, p.k,
    p.transpose_a and "T" or "N", p.transpose_b and "T" or "N", seconds * p.count * 1e3, work / seconds / 1e9))
end
local linear = totals["linear layers"]
local all = linear + (totals.attention or 0)
print(("oneDNN, linear layers alone     %9.2f ms   step / that  %.3f"):format(linear * 1e3, step / linear))
print(("oneDNN, with attention's too    %9.2f ms   step / that  %.3f"):format(all * 1e3, step / all))
print(("our step                        %9.2f ms   (%.2f GFLOP in products)"):format(step * 1e3, flops / 1e9))
run:free()
