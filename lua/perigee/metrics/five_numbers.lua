--- The numbers that papers give for sets of samples, as the ADM evaluator (Dhariwal and Nichol 2021, arXiv 2105.05233)
--- computes them: FID, sFID, Inception score, precision and recall; and the kernel distance.
local core = require "perigee.core.ffi"
local frechet = require "perigee.metrics.frechet"
local inception_score = require "perigee.metrics.inception_score"
local kernel_distance = require "perigee.metrics.kernel_distance"
local manifold = require "perigee.metrics.manifold"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.FiveNumbers
---@field count integer            samples
---@field fid? number             FID; nil: the network is another
---@field fd? number              the Fréchet distance on another network's features
---@field sfid? number             nil: the reference has no spatial statistics
---@field inception_score? number
---@field precision? number        nil: the reference has no pictures
---@field recall? number
---@field kid? number
---@field kid_deviation? number

--- Moments of features and the Inception score, in one pass.
local function statistics(network, set)
  local sums, score = frechet.sums(set.features.width), network.logits and inception_score.new()
  set.features:each(function(rows)
    sums:add(rows)
    if score then score:add(network:logits(rows)) end
  end)
  return sums:moments(), score and (score:value())
end

local function moments(set)
  local sums = frechet.sums(set.width)
  set:each(function(rows) sums:add(rows) end)
  return sums:moments()
end

---@param network perigee.FeatureNetwork
---@param set perigee.PictureFeatures
---@param reference perigee.EvaluationReference
---@param options? { half?: boolean }  distances of precision and recall in float16, as the ADM evaluator's: true
---@return perigee.FiveNumbers
function M.compare(network, set, reference, options)
  if set.features.count < 2 then
    core.fail("%s: %d pictures; expected 2 or more", set.features.name, set.features.count)
  end
  return tensor.tidy(function()
    local features, score = statistics(network, set)
    local spatial = reference.spatial and set.spatial
    local result = { count = set.features.count, inception_score = score,
      sfid = spatial and frechet.distance(reference.spatial, moments(spatial)) or nil }
    result[network.logits and "fid" or "fd"] = frechet.distance(reference.features, features)
    if reference.points then
      result.precision, result.recall = manifold.precision_and_recall(reference.points, set.features, options)
      result.kid, result.kid_deviation = kernel_distance.distance(reference.points, set.features)
    end
    return result
  end)
end

return M
