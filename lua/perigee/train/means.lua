--- Means of the losses and of the gradient's norm over the steps since the last line of the log. A checkpoint between
--- two lines holds the sums, so that a run that continues there logs what it would have logged.
---@class perigee.Means
---@field steps integer                 steps added since
---@field losses table<string, number>  their sums, by name
---@field gradient_norm number
local Means = {}
Means.__index = Means

local M = {}

--- Of no step yet, or of what state() gave.
---@param state? { steps: integer, losses: table<string, number>, gradient_norm: number }
---@return perigee.Means
function M.new(state)
  local self = setmetatable({ steps = 0, losses = {}, gradient_norm = 0 }, Means)
  for key, value in pairs(state or {}) do self[key] = value end
  return self
end

--- Adds a step's numbers.
---@param losses table<string, number>
---@param gradient_norm number
function Means:add(losses, gradient_norm)
  self.steps, self.gradient_norm = self.steps + 1, self.gradient_norm + gradient_norm
  for name, value in pairs(losses) do self.losses[name] = (self.losses[name] or 0) + value end
end

--- The means, and how many steps they are over; the next ones begin.
---@return { losses: table<string, number>, gradient_norm: number, steps: integer }
function Means:take()
  local steps, losses = self.steps, {}
  for name, sum in pairs(self.losses) do losses[name] = sum / steps end
  local taken = { losses = losses, gradient_norm = self.gradient_norm / steps, steps = steps }
  self.steps, self.losses, self.gradient_norm = 0, {}, 0
  return taken
end

--- The sums, for a checkpoint; nil where there are none.
function Means:state()
  if self.steps == 0 then return nil end
  return { steps = self.steps, losses = self.losses, gradient_norm = self.gradient_norm }
end

return M
