--- The distance between the student's weights and their moving averages, relative to the weights: |w - a| / |w|. It is
--- large while the weights travel, and of the size of single steps where they wander about one place.
local check = require "perigee.core.check"
local tensor = require "perigee.core.tensor"

---@class perigee.AverageDistanceOptions
---@field from? integer    0
---@field every? integer   100

---@class perigee.signals
---@field average_distance fun(options?: perigee.AverageDistanceOptions): perigee.Signal

local PIECE = 2 ^ 20 -- elements at a time, whose squares are added up in the dtype of the weights

--- Σ (w − a)² and Σ w² of two flat buffers.
local function squares(weights, averages)
  local distance, size, count = 0, 0, weights:numel()
  for from = 1, count, PIECE do
    tensor.tidy(function()
      local length = math.min(PIECE, count - from + 1)
      local w = weights:narrow(1, from, length)
      local d = w - averages:narrow(1, from, length)
      distance, size = distance + (d * d):sum():item(), size + (w * w):sum():item()
    end)
  end
  return distance, size
end

---@param options? perigee.AverageDistanceOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.average_distance", options or {},
    { from = { "natural", 0 }, every = { "count", 100 } })
  return {
    name = "average_distance", settings = o, key = ("average_distance %d %d"):format(o.from, o.every),
    measure = function(_, run)
      local student = run.groups[1]
      local distance, size = squares(student.parameters, student.average)
      return size > 0 and math.sqrt(distance / size) or 0
    end,
  }
end
