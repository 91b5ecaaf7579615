--- The last part of a step: the gradient's norm, then clipping, AdamW, the moving average and the working copy in one pass
--- over each group's flat buffers. One program a set of groups; every setting is an input of it.
local core = require "perigee.core"
local optim = require "perigee.optim"
local ops, program, tensor = core.ops, core.program, core.tensor

local M = {}

--- Builds the update of some groups; returns a function (settings, ema, step) that runs it and returns the gradient's norm.
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
      working = group.working and p:capture(group.working), gradient = p:capture(group.gradients), hyper = hyper, square_sum = squares,
    }
  end
  local executable = core.executable.compile(p, { { name = "squares", value = squares } }, { device = device })
  local input = tensor.empty({ 8 }, "float64", { device = device })
  local values = require("ffi").new "double[8]"
  local ffi_core = require "perigee.core.ffi"
  return function(settings, ema, step)
    values[0], values[1], values[2] = optim.rate(settings, step), settings.betas[1], settings.betas[2]
    values[3], values[4], values[5], values[6], values[7] = settings.epsilon, settings.decay, settings.clip, ema, step
    ffi_core.check(ffi_core.C.pg_tensor_write(tensor.handle(input), values, 64))
    return math.sqrt(executable:run({ hyper = input }).squares:item())
  end, executable
end

return M
