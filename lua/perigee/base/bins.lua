--- Sums of numbers by bins of [0, 1]: count, mean and standard error of each. Plain data, for checkpoints.
local M = {}

---@class perigee.Bins
---@field count integer[]
---@field sum number[]
---@field squares number[]

--- What a bin, or all of them, hold; `mean` is nil where there is nothing, `error` where there are fewer than two.
---@class perigee.BinSummary
---@field count integer
---@field mean? number
---@field error? number  the mean's standard error: of numbers that are independent

---@param count integer
---@return perigee.Bins
function M.new(count)
  local bins = { count = {}, sum = {}, squares = {} }
  for k = 1, count do bins.count[k], bins.sum[k], bins.squares[k] = 0, 0, 0 end
  return bins
end

--- Adds a number at a place in [0, 1].
---@param bins perigee.Bins
---@param place number
---@param x number
function M.add(bins, place, x)
  local k = math.max(1, math.min(#bins.count, math.floor(place * #bins.count) + 1))
  bins.count[k], bins.sum[k], bins.squares[k] = bins.count[k] + 1, bins.sum[k] + x, bins.squares[k] + x * x
end

local function summary(count, sum, squares)
  if count == 0 then return { count = 0 } end
  local mean = sum / count
  local spread = count > 1 and math.sqrt(math.max(squares / count - mean * mean, 0) / (count - 1)) or nil
  return { count = count, mean = mean, error = spread }
end

--- Of each bin, and of all numbers together.
---@param bins perigee.Bins
---@return perigee.BinSummary[] each, perigee.BinSummary all
function M.summaries(bins)
  local each, count, sum, squares = {}, 0, 0, 0
  for k = 1, #bins.count do
    each[k] = summary(bins.count[k], bins.sum[k], bins.squares[k])
    each[k].from, each[k].to = (k - 1) / #bins.count, k / #bins.count
    count, sum, squares = count + bins.count[k], sum + bins.sum[k], squares + bins.squares[k]
  end
  return each, summary(count, sum, squares)
end

return M
