--- Precision and recall of a set of samples (Kynkäänniemi et al. 2019, arXiv 1904.06991), as the ADM evaluator has
--- them. Every point of a set has a ball that reaches to its third nearest other one. Precision is the share of samples
--- inside some ball of the reference; recall is the share of reference points inside some ball of the samples.
---
--- Squared distances are |u|² − 2·u·v + |v|², at least 0. The evaluator computes them in float16, a block of 10,000 by
--- 10,000 at a time, and a block in which some is not finite in float32. Here a sum is made in float32 and each result
--- rounded to float16. So rough, distances tie, and counts differ from those in float32 in the third digit.
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

local BLOCK, STRIP = 10000, 1000
local NEIGHBOURS = 3

--- Squared distances of rows u [n,D] and v [m,D]: float32 [n,m]; and whether all are finite.
local function distances(u, v, half)
  local function kept(x) return half and ops.round_to_half(x) or x end
  local function norms(x) return kept(kept(x:square()):sum(2)) end
  u, v = kept(u), kept(v)
  local products = kept(ops.matmul(u, v:transpose(1, 2):contiguous()))
  local d = kept(norms(u):reshape { u.shape[1], 1 } - kept(products * 2))
  d = kept(d + norms(v):reshape { 1, v.shape[1] })
  return d:maximum(0), ops.isfinite(d):to("float32"):mean():item() == 1
end

--- Calls reduce(distances [n,m], first, n) for strips of n of the rows u, from the first, and all rows v; in float16
--- where all distances of the block are finite then. Returns lists of what `reduce` returned, in order.
local function of_block(u, v, half, reduce)
  local results = {}
  for first = 1, u.shape[1], STRIP do
    if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
    local count = math.min(STRIP, u.shape[1] - first + 1)
    local finite
    local result = tensor.tidy(function()
      local d
      d, finite = distances(u:narrow(1, first, count):contiguous(), v, half)
      return { reduce(d, first, count) }
    end)
    if half and not finite then return of_block(u, v, false, reduce) end
    results[#results + 1] = result
  end
  return results
end

--- The first rows of the blocks of a set, and how many each has.
local function blocks_of(set)
  local list = {}
  for first = 1, set.count, BLOCK do
    list[#list + 1] = { first = first, count = math.min(BLOCK, set.count - first + 1) }
  end
  return list
end

--- Squared radii of a set's balls, float32 [N]: the distance to a point's third nearest other point, itself counted as
--- the nearest.
---@param set perigee.FeatureSet
---@param half boolean
---@return perigee.Tensor
function M.radii(set, half)
  if set.count <= NEIGHBOURS then
    core.fail("precision and recall: %s has %d points; expected more than %d", set.name, set.count, NEIGHBOURS)
  end
  local parts = {}
  for _, rows in ipairs(blocks_of(set)) do
    parts[#parts + 1] = tensor.tidy(function()
      local u, nearest = set:rows(rows.first, rows.count), nil
      for _, columns in ipairs(blocks_of(set)) do
        nearest = tensor.tidy(function()
          local strips = of_block(u, set:rows(columns.first, columns.count), half, function(d)
            return (d:topk(math.min(NEIGHBOURS + 1, d.shape[2]), 2, { smallest = true })):contiguous()
          end)
          local here = {}
          for k, strip in ipairs(strips) do here[k] = strip[1] end
          here = #here == 1 and here[1] or ops.concat(here, 1)
          local all = nearest and ops.concat({ nearest, here }, 2) or here
          return (all:topk(math.min(NEIGHBOURS + 1, all.shape[2]), 2, { smallest = true })):contiguous()
        end)
      end
      return nearest:select(2, NEIGHBOURS + 1):contiguous()
    end)
  end
  return #parts == 1 and parts[1] or ops.concat(parts, 1)
end

local function zeros(n) return ops.fill({ n }, { value = 0, dtype = "float32" }) end

--- Which points lie in some ball of the other set: float32 of ones and zeros for the reference's and for the samples'.
local function inside(reference, samples, radii, half)
  local of_reference, of_samples = zeros(reference.count), zeros(samples.count)
  local function mark(all, first, found)
    local place = all:narrow(1, first, found.shape[1])
    place:copy_(place:maximum(found))
  end
  for _, rows in ipairs(blocks_of(reference)) do
    for _, columns in ipairs(blocks_of(samples)) do
      tensor.tidy(function()
        local ball = radii.reference:narrow(1, rows.first, rows.count)
        local balls = radii.samples:narrow(1, columns.first, columns.count):reshape { 1, columns.count }
        local u, v = reference:rows(rows.first, rows.count), samples:rows(columns.first, columns.count)
        local strips = of_block(u, v, half, function(d, first, count)
          local own = ball:narrow(1, first, count):reshape { count, 1 }
          return ops.less_equal(d, balls):to("float32"):max(2), ops.less_equal(d, own):to("float32"):max(1)
        end)
        local first = rows.first
        for _, strip in ipairs(strips) do
          mark(of_reference, first, strip[1])
          mark(of_samples, columns.first, strip[2])
          first = first + strip[1].shape[1]
        end
      end)
    end
  end
  return of_reference, of_samples
end

---@param reference perigee.FeatureSet
---@param samples perigee.FeatureSet
---@param options? { half?: boolean }  float16's distances, as the ADM evaluator's: true
---@return number precision, number recall
function M.precision_and_recall(reference, samples, options)
  local half = not (options and options.half == false)
  return tensor.tidy(function()
    local radii = { reference = M.radii(reference, half), samples = M.radii(samples, half) }
    local of_reference, of_samples = inside(reference, samples, radii, half)
    return of_samples:to("float64"):mean():item(), of_reference:to("float64"):mean():item()
  end)
end

return M
