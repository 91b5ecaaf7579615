--- How long steps take, and what the end of a teacher gives back: the mean step of the previous stage and of the
--- new one.
---@class perigee.Pace
local Pace = {}
Pace.__index = Pace

-- first steps of a stage, which load and capture; steps that a mean is taken over
local M = { SKIPPED = 5, WINDOW = 50 }

---@param clock fun(): number  seconds
---@return perigee.Pace
function M.new(clock) return setmetatable({ clock = clock, ticks = {} }, Pace) end

--- A step's numbers have come.
function Pace:tick()
  self.ticks[#self.ticks + 1] = self.clock()
  if #self.ticks > M.SKIPPED + M.WINDOW + 1 then table.remove(self.ticks, M.SKIPPED + 1) end
end

--- Mean seconds a step, or nil before the window is full.
function Pace:mean()
  local first, last = self.ticks[M.SKIPPED + 1], self.ticks[M.SKIPPED + M.WINDOW + 1]
  return last and (last - first) / M.WINDOW or nil
end

--- A stage begins. `compared`: its steps will be held against those of the one before.
function Pace:begin_stage(compared)
  self.before = compared and self:mean() or nil
  self.ticks = {}
end

--- Once, when the new stage's mean is there: seconds a step before and now.
function Pace:gained()
  local now = self.before and self:mean()
  if not now then return nil end
  local before = self.before
  self.before = nil
  return before, now
end

return M
