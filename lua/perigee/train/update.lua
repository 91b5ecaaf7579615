--- The last part of a step: the gradient's norm, then clipping, AdamW, the moving average and the working copy in one
--- pass over each group's flat buffers. One program a set of groups; every setting is an input of it.
local ffi = require "ffi"
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local optim = require "perigee.optim"
local ops, program, tensor = core.ops, core.program, core.tensor

local M = {}

--- The update of some groups, planned: `hyper` in (see M.settings), the gradient's squared norm before clipping out as
--- `squares`.
---@return perigee.Plan
function M.plan(groups, device)
  local p = program.new "update"
  local hyper = p:input("hyper", { 8 }, "float64")
  local squares, moving = nil, {}
  for _, group in ipairs(groups) do
    if group.gradients:numel() > 0 then moving[#moving + 1] = group end -- else all of it is frozen
  end
  for _, group in ipairs(moving) do
    local square = ops.square_sum(p:capture(group.gradients))
    squares = squares and squares + square or square
  end
  for _, group in ipairs(moving) do
    local count = group.gradients:numel()
    local function trained(flat) return p:capture(flat:numel() == count and flat or flat:narrow(1, 1, count)) end
    ops.adamw {
      parameters = trained(group.parameters), first_moment = p:capture(group.first_moment),
      second_moment = p:capture(group.second_moment), average = trained(group.average),
      working = group.working and trained(group.working), gradient = p:capture(group.gradients), hyper = hyper,
      square_sum = squares,
    }
  end
  return core.plan.build(p, { { name = "squares", value = squares } }, { device = device })
end

--- Room for the settings of an update, on a device.
function M.hyper(device) return tensor.empty({ 8 }, "float64", { device = device }) end

local values = ffi.new "double[8]"

--- Writes the settings of the update that makes step `step`, counted from 1.
function M.settings(hyper, settings, ema, step)
  values[0], values[1], values[2] = optim.rate(settings, step), settings.betas[1], settings.betas[2]
  values[3], values[4], values[5], values[6], values[7] = settings.epsilon, settings.decay, settings.clip, ema, step
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(hyper), values, 64))
end

return M
