--- What samples are compared with: the statistics of real pictures' features, and the features themselves of as many of
--- them as precision and recall need.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local frechet = require "perigee.metrics.frechet"
local layout = require "perigee.core.layout"
local npz = require "perigee.io.npz"
local ops = require "perigee.core.ops"
local picture_source = require "perigee.metrics.picture_source"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.EvaluationReference
---@field name string
---@field features perigee.Moments
---@field spatial? perigee.Moments
---@field points? perigee.FeatureSet
---@field pictures? integer  how many the points are of

--- A mean and a covariance out of an archive.
local function moments_of(path, mu, sigma, width)
  local mean, covariance = npz.load(path, mu), npz.load(path, sigma)
  if layout.numel(mean.shape) ~= width or not layout.same_shape(covariance.shape, { width, width }) then
    core.fail("%s: '%s' is %s and '%s' is %s; expected [%d] and [%d,%d]", path, mu, core.shape_text(mean.shape), sigma,
      core.shape_text(covariance.shape), width, width, width)
  end
  return { count = 0, mean = mean:to("float64"):reshape { 1, width }, covariance = covariance:to "float64" }
end

--- The moments of a set of features.
---@param set perigee.FeatureSet
---@return perigee.Moments
function M.moments(set)
  local sums = frechet.sums(set.width)
  set:each(function(rows) sums:add(rows) end)
  return sums:moments()
end

--- Opens a reference: an .npz with `mu` and `sigma`, perhaps `mu_s` and `sigma_s` of the spatial features, and `arr_0`,
--- pictures (ADM's); or pictures alone, of which all is computed (metrics/picture_source.lua).
---@param network perigee.FeatureNetwork
---@param path string
---@param progress? fun(done: integer, count: integer)
---@return perigee.EvaluationReference
function M.open(network, path, progress)
  local has = {}
  if files.exists(path) and path:match "%.npz$" then
    for _, name in ipairs(npz.names(path)) do has[name] = true end
    if not has.arr_0 and not (has.mu and has.sigma) then
      core.fail("%s: not a reference: it has neither 'mu' and 'sigma' nor 'arr_0'; it has %s", path,
        table.concat(npz.names(path), ", "))
    end
  end
  local reference = { name = path:match "[^/]+/*$" }
  if has.mu and has.sigma then
    reference.features = moments_of(path, "mu", "sigma", network.width)
    if has.mu_s and has.sigma_s and network.spatial > 0 then
      reference.spatial = moments_of(path, "mu_s", "sigma_s", network.spatial)
    end
    if not has.arr_0 then return reference end
  end
  local source = picture_source.open(path)
  local set = network:features(source, progress and function(done) progress(done, source.count) end)
  reference.points, reference.pictures = set.features, source.count
  if not reference.features then
    reference.features, reference.spatial = M.moments(set.features), set.spatial and M.moments(set.spatial)
  end
  return reference
end

local MOST_PICTURES = 10000

--- `count` different numbers from 1 to n, in order, drawn once and for all.
local function chosen(count, n)
  local list, taken, state = {}, {}, 20240229
  while #list < count do
    state = state * 16807 % 2147483647
    local k = state % n + 1
    if not taken[k] then taken[k], list[#list + 1] = true, k end
  end
  table.sort(list)
  return list
end

--- Writes the reference of a set of pictures, as ADM's files are: statistics of all of them, and 10,000 drawn pictures,
--- or all if they are no more.
---@param network perigee.FeatureNetwork
---@param source perigee.PictureSource
---@param path string
---@param progress? fun(done: integer)
---@param most? integer  pictures that are kept, 10,000
function M.make(network, source, path, progress, most)
  local set = network:features(source, progress)
  local kept = math.min(source.count, most or MOST_PICTURES)
  local numbers = kept < source.count and chosen(kept, source.count)
  npz.save(path, function(add)
    add("arr_0", "uint8", { kept, source.height, source.width, 3 }, function(append)
      for k = 1, kept do
        tensor.tidy(function() append(source:read(numbers and numbers[k] or k, 1)) end)
      end
    end)
    for suffix, part in pairs { [""] = set.features, _s = set.spatial } do
      local moments = M.moments(part)
      add("mu" .. suffix, "float64", { part.width }, function(append) append(ops.contiguous(moments.mean)) end)
      add("sigma" .. suffix, "float64", { part.width, part.width }, function(append) append(moments.covariance) end)
    end
  end)
  files.remove(set.path)
  return kept
end

return M
