--- The last part of a step: the gradient's norm, then clipping, AdamW, the moving average and the working copy in one pass
--- over each group's flat buffers. One program a set of groups; every setting is an input of it.
local ffi = require "ffi"
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local optim = require "perigee.optim"
local ops, program, tensor = core.ops, core.program, core.tensor

local M = {}

---@class perigee.Update
local Update = {}
Update.__index = Update

--- Builds the update of some groups.
---@return perigee.Update
function M.build(groups, device)
  local p = program.new "update"
  local hyper = p:input("hyper", { 8 }, "float64")
  local squares
  for _, group in ipairs(groups) do
    local square = ops.square_sum(p:capture(group.gradients))
    squares = squares and squares + square or square
  end
  for _, group in ipairs(groups) do
    ops.adamw {
      parameters = p:capture(group.parameters), first_moment = p:capture(group.first_moment),
      second_moment = p:capture(group.second_moment), average = p:capture(group.average),
      working = group.working and p:capture(group.working), gradient = p:capture(group.gradients), hyper = hyper,
      square_sum = squares,
    }
  end
  local plan = core.plan.build(p, { { name = "squares", value = squares } }, { device = device })
  return setmetatable({
    plan = plan, executable = core.executable.new(plan), hyper = tensor.empty({ 8 }, "float64", { device = device }),
    values = ffi.new "double[8]",
  }, Update)
end

--- Queues one update; `step` counts from 1. Returns the tensor of the gradient's squared norm before clipping.
function Update:queue(settings, ema, step)
  local values = self.values
  values[0], values[1], values[2] = optim.rate(settings, step), settings.betas[1], settings.betas[2]
  values[3], values[4], values[5], values[6], values[7] = settings.epsilon, settings.decay, settings.clip, ema, step
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(self.hyper), values, 64))
  return self.executable:run({ hyper = self.hyper }).squares
end

--- One update; returns the gradient's norm before clipping.
function Update:run(settings, ema, step) return math.sqrt(self:queue(settings, ema, step):item()) end

function Update:free()
  self.executable:free()
  self.hyper:free()
end

return M
