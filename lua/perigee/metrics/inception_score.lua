--- The Inception score (Salimans et al. 2016, arXiv 1606.03498): exp of the mean divergence of a picture's class
--- probabilities from those of its part of the set; the mean over parts. The ADM evaluator takes parts of 5,000 in the
--- file's order, the last one perhaps smaller, so a set that is sorted by class scores low.
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local M = {}

M.PART = 5000

---@class perigee.InceptionScore
---@field part integer
---@field scores number[]  of whole parts
local Score = {}
Score.__index = Score

---@param part? integer  5,000
---@return perigee.InceptionScore
function M.new(part)
  return setmetatable({ part = part or M.PART, scores = {}, count = 0, certainty = 0, sum = nil }, Score)
end

local function close(self)
  if self.count == 0 then return end
  local confusion = tensor.tidy(function()
    local mean = self.sum * (1 / self.count)
    return (mean * mean:maximum(1e-300):log()):sum():item()
  end)
  self.scores[#self.scores + 1] = math.exp(self.certainty / self.count - confusion)
  self.count, self.certainty, self.sum = 0, 0, nil
end

--- Logits [n,C] of the next pictures, in their order.
---@param logits perigee.Tensor
function Score:add(logits)
  local first, n = 1, logits.shape[1]
  while first <= n do
    local taken = math.min(n - first + 1, self.part - self.count)
    local certainty
    self.sum, certainty = tensor.outlive(tensor.tidy, function()
      local logs = logits:narrow(1, first, taken):contiguous():to("float64"):log_softmax(2)
      local p = logs:exp()
      local sum = p:sum(1)
      return self.sum and self.sum + sum or sum, (p * logs):sum():item()
    end)
    self.certainty, self.count, first = self.certainty + certainty, self.count + taken, first + taken
    if self.count == self.part then close(self) end
  end
end

--- The score of what was added, and its standard deviation over the parts.
---@return number score, number deviation
function Score:value()
  close(self)
  if #self.scores == 0 then core.fail "Inception score: no picture was added" end
  local sum, squares = 0, 0
  for _, score in ipairs(self.scores) do sum, squares = sum + score, squares + score ^ 2 end
  local mean = sum / #self.scores
  return mean, math.sqrt(math.max(squares / #self.scores - mean ^ 2, 0))
end

return M
