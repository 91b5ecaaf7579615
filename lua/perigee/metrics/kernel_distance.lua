--- The kernel distance, KID (Bińkowski et al. 2018, arXiv 1801.01401): the unbiased estimate of the squared maximum
--- mean discrepancy under the kernel (x·y/D + 1)³, over random subsets of both sets. It has no bias from their sizes.
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

local SUBSETS, SIZE = 100, 1000

local function kernel(x, y) return (ops.matmul(x, y:transpose(1, 2):contiguous()) * (1 / x.shape[2]) + 1) ^ 3 end

--- Σ over pairs of different rows of k(x, x), divided by their number.
local function within(x)
  local m = x.shape[1]
  local all = kernel(x, x):sum():item()
  local same = ((x:square():sum(2) * (1 / x.shape[2]) + 1) ^ 3):sum():item()
  return (all - same) / (m * (m - 1))
end

--- The estimate for all rows of x [m,D] and y [n,D], in float64.
---@return number
function M.estimate(x, y)
  return tensor.tidy(function()
    x, y = x:to "float64", y:to "float64"
    return within(x) + within(y) - 2 * kernel(x, y):mean():item()
  end)
end

--- `count` different numbers below n, drawn by a minimal standard generator whose state is in `random`.
local function drawn(count, n, random)
  local list, seen = {}, {}
  while #list < count do
    random.state = random.state * 16807 % 2147483647
    local k = random.state % n
    if not seen[k] then seen[k], list[#list + 1] = true, k end
  end
  return list
end

--- The mean and the standard deviation over random subsets of both sets. Where a set is no larger than a subset, all of
--- it is taken.
---@param a perigee.FeatureSet
---@param b perigee.FeatureSet
---@param options? { subsets?: integer, size?: integer }  100 of 1,000
---@return number distance, number deviation
function M.distance(a, b, options)
  local subsets, size = options and options.subsets or SUBSETS, options and options.size or SIZE
  size = math.min(size, a.count, b.count)
  if size < 2 then core.fail("kernel distance: %s and %s need 2 points each", a.name, b.name) end
  if size == a.count and size == b.count then subsets = 1 end
  local random, sum, squares = { state = 20240229 }, 0, 0
  for _ = 1, subsets do
    if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
    local value = tensor.tidy(function()
      return M.estimate(a:pick(drawn(size, a.count, random)), b:pick(drawn(size, b.count, random)))
    end)
    sum, squares = sum + value, squares + value ^ 2
  end
  local mean = sum / subsets
  return mean, math.sqrt(math.max(squares / subsets - mean ^ 2, 0))
end

return M
