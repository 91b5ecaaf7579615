--- Alignment weighted by noise level: `time_weight = function(t) return 1 - t end` on a loss. The function gets the
--- samples' times, [B], and returns their weights, [B], by ops. Gradients are weighted, exactly; the loss's logged
--- value is the plain mean.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"

local M = {}

--- The student's value x [B,..] as a loss is to read it: x itself, whose gradient is weighted by the sample's time.
---@param name string      the loss's
---@param weight? fun(t: perigee.Value): perigee.Value
---@param context perigee.Context
---@param x perigee.Value
---@return perigee.Value
function M.apply(name, weight, context, x)
  if not weight then return x end
  local t = context:forward().t
  local w = weight(t)
  if not program.is_value(w) or #w.shape ~= 1 or w.shape[1] ~= t.shape[1] then
    core.fail("loss '%s': time_weight returns %s; expected a weight for each of %d samples, made of t by ops, such as "
      .. "function(t) return 1 - t end", name,
      program.is_value(w) and core.shape_text(w.shape) or tostring(w), t.shape[1])
  end
  local shape, stat = { t.shape[1] }, op.stat(x.dtype)
  for d = 2, #x.shape do shape[d] = 1 end
  local held = ops.stop_gradient(x)
  local weighted = (x - held):to(stat) * ops.stop_gradient(w:to(stat):reshape(shape)) -- zeros, with x's gradient
  return held + weighted:to(x.dtype)
end

return M
