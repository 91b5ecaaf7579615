--- Optimisers: settings, checked once. What may change while a run is going (learning rate, decay, clip, EMA decay) is
--- copied into the run and read by every step's update as an input of the program.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"

---@class perigee.optim
local M = {}

---@class perigee.AdamwOptions
---@field lr? number          1e-4
---@field betas? number[]     { 0.9, 0.999 }
---@field epsilon? number     1e-8
---@field decay? number       0
---@field clip? number        1; 0: no clipping
---@field warmup? integer     0
---@field cooldown? number[]  { first step, last step }

---@class perigee.Adamw : perigee.AdamwOptions

--- AdamW (arXiv 1711.05101) with decoupled decay, clipping by the global gradient norm, linear warm-up over `warmup`
--- steps, and, if asked, a linear cool-down to zero over the steps cooldown = { first, last }. clip = 0: no clipping.
---@param options? perigee.AdamwOptions
---@return perigee.Adamw
function M.adamw(options)
  local o = check.options("optim.adamw", options or {}, {
    lr = { "number", 1e-4 }, betas = { "table", { 0.9, 0.999 } }, epsilon = { "number", 1e-8 }, decay = { "number", 0 },
    clip = { "number", 1 }, warmup = { "integer", 0 }, cooldown = { "table" },
  })
  local cooldown = o.cooldown
  if cooldown and not (#cooldown == 2 and type(cooldown[1]) == "number" and type(cooldown[2]) == "number"
    and cooldown[1] <= cooldown[2]) then
    core.fail "optim.adamw: cooldown is { first step, last step }"
  end
  if #o.betas ~= 2 then core.fail "optim.adamw: betas is a list of two numbers" end
  for k, beta in ipairs(o.betas) do
    if type(beta) ~= "number" or beta < 0 or beta >= 1 then
      core.fail("optim.adamw: beta %d is %s; expected 0 <= beta < 1", k, tostring(beta))
    end
  end
  if o.lr < 0 then core.fail("optim.adamw: lr is %g", o.lr) end
  o.kind = "adamw"
  return o
end

--- The learning rate of a step (counted from 1): warm-up lr·min(1, step/warmup), then lr, then the cool-down.
---@param optim perigee.Adamw
---@param step integer
---@return number
function M.rate(optim, step)
  local rate = optim.lr
  if optim.warmup > 0 then rate = rate * math.min(1, step / optim.warmup) end
  if optim.cooldown then
    local first, last = optim.cooldown[1], optim.cooldown[2]
    rate = rate * math.max(0, math.min(1, (last + 1 - step) / (last + 1 - first)))
  end
  return rate
end

return M
