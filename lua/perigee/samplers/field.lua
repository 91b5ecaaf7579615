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
  local plan_outputs = { { name = "velocity", value = p:trace(student, x, t, y) } }
  return core.executable.compile(p, plan_outputs,
    { captures = options.captures, device = options.device, purpose = "signal" }), dtype
end

--- Guidance of a field with labels: v = v_null + scale·(v_label − v_null) where low <= t <= high, on all channels;
--- elsewhere, and with scale 1, the labelled velocity. `velocity` is a function (x, t, labels).
function M.guided(velocity, labels, null, options)
  local scale, low, high = options.scale or 1, options.low or 0, options.high or 1
  return function(x, t)
    local v = velocity(x, t, labels)
    if scale == 1 or t < low or t > high then return v end
    local v_null = velocity(x, t, null)
    return v_null + (v - v_null) * scale
  end
end

--- A compiled student as a guided field for given labels (int64 [B]).
function M.new(executable, student, labels, options)
  local batch = labels.shape[1]
  local dtype = options.dtype or "float32"
  local null = ops.fill({ batch }, { value = student.null_label, dtype = "int64" })
  local stat = dtype == "float64" and "float64" or "float32"
  local function velocity(x, t, y)
    local time = ops.fill({ batch }, { value = t, dtype = stat })
    local here = executable.plan.device -- the state is integrated on the CPU
    local out = executable:run({ x = x:to(dtype):to(here), t = time:to(here), y = y:to(here) })
    return out.velocity:clone({ device = "cpu" }):to "float64"
  end
  return M.guided(velocity, labels, null, options)
end

return M
