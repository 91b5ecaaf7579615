--- The last part of a step: the gradient's norm, then the optimiser's step with clipping, moving average and working
--- copy, in one pass over each group's flat buffers. One program a set of groups; every setting is an input of it.
local ffi = require "ffi"
local core = require "perigee.core"
local core_ffi = require "perigee.core.ffi"
local optim = require "perigee.optim"
local ops, program, tensor = core.ops, core.program, core.tensor

local M = {}

--- The update of some groups, planned: `hyper` in (see M.settings), the gradient's squared norm before clipping out as
--- `squares`.
---@param settings perigee.Optimiser
---@return perigee.Plan
function M.plan(settings, groups, device)
  local optimiser = optim.definition(settings)
  local p = program.new "update"
  local hyper = p:input("hyper", { #optim.hyper(settings, 0, 1) }, "float64")
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
    local fields = {
      parameters = trained(group.parameters), average = trained(group.average),
      working = group.working and trained(group.working), gradient = p:capture(group.gradients), hyper = hyper,
      square_sum = squares,
    }
    for _, moment in ipairs(optimiser.moments) do fields[moment.name] = p:capture(group.moments[moment.name]) end
    optimiser.record(fields)
  end
  return core.plan.build(p, { { name = "squares", value = squares } }, { device = device })
end

--- Room for the settings of an update, on a device.
---@param settings perigee.Optimiser
---@return perigee.Tensor
function M.hyper(settings, device)
  return tensor.empty({ #optim.hyper(settings, 0, 1) }, "float64", { device = device })
end

--- Writes the settings of the update that makes step `step`, counted from 1.
---@param hyper perigee.Tensor  of M.hyper
function M.settings(hyper, settings, ema, step)
  local numbers = optim.hyper(settings, ema, step)
  local values = ffi.new("double[?]", #numbers, numbers)
  core_ffi.check(core_ffi.C.pg_tensor_write(tensor.handle(hyper), values, 8 * #numbers))
end

return M
