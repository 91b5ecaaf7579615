--- How young the moving averages are with which samples are drawn.
local schedules = require "perigee.schedules"

local M = {}

--- The share of the first weights in the averages after so many steps: the product of the decays.
---@param ema number|perigee.Schedule
---@param steps integer
---@return number
function M.first_share(ema, steps)
  if not schedules.is_schedule(ema) then return ema ^ steps end
  local share = 1
  for step = 1, steps do
    share = share * ema:at(step)
    if share < 1e-9 then return 0 end
  end
  return share
end

local YOUNG = math.exp(-1) -- what is left of the first weights after one time constant

--- A sentence where the averages are younger than their time constant; else nil.
---@param ema number|perigee.Schedule
---@param steps integer
---@return string?
function M.remark(ema, steps)
  local share = M.first_share(ema, steps)
  if share <= YOUNG or steps == 0 then return nil end
  return ("note: after %d steps the moving averages (ema = %s) are still %.0f %% the first weights: --no-ema samples "
    .. "without them, a smaller `ema` makes them younger"):format(steps, schedules.text(ema), share * 100)
end

--- The same for a checkpoint's state.
---@return string?
function M.remark_of(state) return M.remark(schedules.of(state.settings.ema), state.step) end

return M
