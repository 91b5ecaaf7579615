--- The Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al. 2017, arXiv 1706.08500,
--- eq. 6):
---
---   |m₁ − m₂|² + Tr(C₁ + C₂ − 2·(C₁·C₂)^½)
---
--- With C₁ = B·Bᵀ the product's eigenvalues, but for zeros, are those of the symmetric Bᵀ·C₂·B, so that no root of a
--- general matrix is needed, and few samples need little work. Everything is float64.
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local symmetric = require "perigee.metrics.symmetric"
local tensor = require "perigee.core.tensor"

local M = {}

--- The statistics of features [N,D]: their number, mean [1,D] and covariance [D,D] (divided by N − 1).
---@class perigee.Moments
---@field count integer
---@field mean perigee.Tensor
---@field covariance perigee.Tensor
---@field root? perigee.Tensor   B, made when it is first needed

---@param features perigee.Tensor
---@return perigee.Moments
function M.moments(features)
  if #features.shape ~= 2 or features.shape[1] < 2 then
    core.fail("Fréchet distance: features are %s; expected [N,D] with N of 2 or more", core.shape_text(features.shape))
  end
  local count, width = features.shape[1], features.shape[2]
  local mean, covariance = tensor.tidy(function()
    local x = features:to "float64"
    local mean = x:mean(1):reshape { 1, width }
    local centred = x - mean
    return mean, ops.matmul(centred:transpose(1, 2):contiguous(), centred) * (1 / (count - 1))
  end)
  return { count = count, mean = mean, covariance = covariance }
end

---@class perigee.MomentSums
local Sums = {}
Sums.__index = Sums

--- Moments of features that come in pieces: memory holds sums alone, taken about the first piece's mean.
---@param width integer
---@return perigee.MomentSums
function M.sums(width)
  local function zeros(shape) return ops.fill(shape, { value = 0, dtype = "float64" }) end
  return setmetatable({ count = 0, sum = zeros { 1, width }, products = zeros { width, width } }, Sums)
end

---@param features perigee.Tensor  [n,D]
function Sums:add(features)
  local count, width = features.shape[1], features.shape[2]
  local x = features:to "float64"
  self.origin = self.origin or tensor.outlive(tensor.tidy, function() return x:mean(1):reshape { 1, width } end)
  tensor.tidy(function()
    local centred = x - self.origin
    self.sum:copy_(self.sum + centred:sum(1):reshape { 1, width })
    self.products:copy_(self.products + ops.matmul(centred:transpose(1, 2):contiguous(), centred))
  end)
  self.count = self.count + count
end

---@return perigee.Moments
function Sums:moments()
  local n = self.count
  if n < 2 then core.fail("Fréchet distance: features of %d pictures; expected 2 or more", n) end
  local mean, covariance = tensor.tidy(function()
    local shift = self.sum * (1 / n)
    local outer = ops.matmul(shift:transpose(1, 2):contiguous(), shift)
    return self.origin + shift, (self.products - outer * n) * (1 / (n - 1))
  end)
  return { count = n, mean = mean, covariance = covariance }
end

--- B, of C = B·Bᵀ.
local function root_of(moments)
  moments.root = moments.root or tensor.outlive(symmetric.root, moments.covariance)
  return moments.root
end

local function trace(t)
  local array, sum = tensor.to_host(t), 0
  for k = 0, t.shape[1] - 1 do sum = sum + array[k * (t.shape[1] + 1)] end
  return sum
end

--- The distance of two moments. The first one's root is kept: give the set that is compared with many.
---@param a perigee.Moments
---@param b perigee.Moments
---@return number
function M.distance(a, b)
  if a.mean.shape[2] ~= b.mean.shape[2] then
    core.fail("Fréchet distance: features of %d and of %d numbers", a.mean.shape[2], b.mean.shape[2])
  end
  return tensor.tidy(function()
    local root = root_of(a)
    local between = ops.matmul(root:transpose(1, 2):contiguous(), ops.matmul(b.covariance, root))
    local eigenvalues = symmetric.eigenvalues(between)
    local shared = ops.sqrt(ops.maximum(eigenvalues, 0)):sum():item()
    local shift = (a.mean - b.mean):square():sum():item()
    return shift + trace(a.covariance) + trace(b.covariance) - 2 * shared
  end)
end

--- Numbers 1 ... n in an order drawn once and for all (Fisher and Yates, with the minimal standard generator).
local function shuffled(n)
  local list, state = {}, 20240229
  for k = 1, n do list[k] = k - 1 end
  for k = n, 2, -1 do
    state = state * 16807 % 2147483647
    local other = state % k + 1
    list[k], list[other] = list[other], list[k]
  end
  return list
end

local POINTS = 8

--- The distance grows with 1/N as the sample gets smaller; the value that it has at 1/N = 0, by a straight line through
--- the distances of 8 random parts of N/4 ... N samples (Chong and Forsyth 2020, arXiv 1911.07023). Nil where the
--- smallest part has less samples than the features have numbers: then the line isn't straight. The reference stays as
--- it is, with its own bias.
---@param reference perigee.Moments
---@param features perigee.Tensor   [N,D]
---@return number? limit, number? slope
function M.extrapolate(reference, features)
  local n, width = features.shape[1], features.shape[2]
  if n / 4 < width then return nil end
  local order = tensor.tensor(shuffled(n), { n }, "int64")
  local mixed = ops.embedding(features, order)
  local sx, sy, sxx, sxy = 0, 0, 0, 0
  for k = 1, POINTS do
    local size = math.floor(n * (0.25 + 0.75 * (k - 1) / (POINTS - 1)))
    local x = 1 / size
    local y = M.distance(reference, M.moments(mixed:narrow(1, 1, size):contiguous()))
    sx, sy, sxx, sxy = sx + x, sy + y, sxx + x * x, sxy + x * y
  end
  local slope = (POINTS * sxy - sx * sy) / (POINTS * sxx - sx * sx)
  return (sy - slope * sx) / POINTS, slope
end

return M
