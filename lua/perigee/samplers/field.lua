--- A student as a velocity field, with classifier-free guidance inside an interval of times.
local core = require "perigee.core"
local ops = core.ops

local M = {}

--- The student's forward pass for batches of `batch`, compiled. `captures` maps parameters to what stands for them (the
--- moving averages during a run).
function M.compile(student, batch, options)
  options = options or {}
  local dtype = options.dtype or "float32"
  local p = core.program.new "velocity"
  local x = p:input("x", { batch, student.channels, student.size[1], student.size[2] }, dtype)
  local t = p:input("t", { batch }, dtype == "float64" and "float64" or "float32")
  local y = p:input("y", { batch }, "int64")
  local plan_outputs = { { name = "velocity", value = student(x, t, y) } }
  return core.executable.compile(p, plan_outputs, { captures = options.captures, device = options.device, purpose = "signal" }), dtype
end

--- The field (x, t) -> velocity for given labels (int64 [B]). Guidance: v = v_null + scale·(v_label − v_null) where
--- low <= t <= high, on all channels; elsewhere, and with scale 1, the labelled velocity.
function M.new(executable, student, labels, options)
  local scale, low, high = options.scale or 1, options.low or 0, options.high or 1
  local batch = labels.shape[1]
  local dtype = options.dtype or "float32"
  local null = ops.fill({ batch }, { value = student.null_label, dtype = "int64" })
  local stat = dtype == "float64" and "float64" or "float32"
  return function(x, t)
    local inputs = { x = x:to(dtype), t = ops.fill({ batch }, { value = t, dtype = stat }), y = labels }
    local v = executable:run(inputs).velocity:clone():to "float64"
    if scale == 1 or t < low or t > high then return v end
    inputs.y = null
    local v_null = executable:run(inputs).velocity:to "float64"
    return v_null + (v - v_null) * scale
  end
end

return M
