--- Samples by number: sample k has its noise and label from (seed, k) alone, whatever the batch size, so that a set of
--- samples can be made in pieces, in any order, and taken up again after an interruption.
local check = require "perigee.core.check"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local field = require "perigee.samplers.field"
local samplers = require "perigee.samplers"
local ops, tensor = core.ops, core.tensor

local M = {}

local spec = {
  count = { "integer", 64 }, first = { "integer", 0 }, batch = { "integer", 64 }, seed = { "integer", 0 },
  cfg = { "number", 1 },
  interval = { "table", { 0, 1 } }, sampler = { "string", "euler" }, steps = { "integer", 50 },
  path = { "string", "linear" },
  labels = { "string|table", "balanced" }, captures = { "table" }, dtype = { "string", "float32" },
  device = { "string", "cpu" }, tf32 = { "boolean", false }, decode = { "function" }, progress = { "function" },
}

--- Labels of samples first .. first+count−1 (numbered from 0): "balanced" goes round the classes, "drawn" draws each
--- uniformly from (seed, number), a list is used in turn.
function M.labels(how, first, count, classes, seed)
  if how == "drawn" then
    local state = tensor.tensor({ seed, 0, first }, "int64")
    return ops.random_integers({ count }, { state = state, purpose = "sample label", high = classes })
  end
  local list = {}
  for k = 1, count do
    if type(how) == "table" then list[k] = how[(first + k - 1) % #how + 1]
    elseif how == "balanced" then list[k] = (first + k - 1) % classes
    else core_ffi.fail("labels are '%s'; there are balanced, drawn, or a list", tostring(how)) end
    if list[k] < 0 or list[k] >= classes then
      core_ffi.fail("label %d of a student with %d classes", list[k], classes)
    end
  end
  return tensor.tensor(list, { count }, "int64")
end

--- Makes samples in batches and hands each to `take(first, images, labels)`: the first one's number from 0, uint8
--- [b,H,W,C], int64 [b]; the images are freed when it returns. `decode` turns the final state into values in [−1, 1]
--- [b,C,H,W]; by default it is taken as such.
function M.each(student, options, take)
  local o = check.options("sample", options, spec)
  local batch = math.min(o.batch, o.count)
  core_ffi.C.pg_tf32_set(o.tf32 and 1 or 0)
  local executable = field.compile(student, batch, { captures = o.captures, dtype = o.dtype, device = o.device })
  local shape = { batch, student.channels, student.size[1], student.size[2] }
  local done = 0
  while done < o.count do
    local first, wanted = o.first + done, math.min(batch, o.count - done)
    local bytes, labels = tensor.tidy(function()
      local function noise(step)
        local state = tensor.tensor({ o.seed, step, first }, "int64")
        return ops.random_normal(shape, { state = state, purpose = "sample noise", dtype = "float32" }):to "float64"
      end
      local labels = M.labels(o.labels, first, batch, student.classes, o.seed)
      local velocity = field.new(executable, student, labels, {
        scale = o.cfg, low = o.interval[1], high = o.interval[2], dtype = o.dtype,
      })
      local x = samplers.integrate(velocity, noise(0), {
        sampler = o.sampler, steps = o.steps, path = o.path, noise = noise,
        each = o.progress and function(k) o.progress(done + wanted * k / o.steps) end or nil,
      })
      local values = o.decode and o.decode(x) or x
      local bytes = ops.images_to_bytes(values:to "float32")
      if wanted == batch then return bytes, labels end
      return bytes:narrow(1, 1, wanted):contiguous(), labels:narrow(1, 1, wanted):contiguous()
    end)
    take(first, bytes, labels)
    bytes:free()
    done = done + wanted
  end
  executable:free()
end

return M
