--- Samples by number: sample k has its noise and label from (seed, k) alone, whatever the batch size, so that a set of
--- samples can be made in pieces, in any order, and taken up again after an interruption.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local field = require "perigee.sampling.field"
local samplers = require "perigee.samplers"
local ops, tensor = core.ops, core.tensor

local M = {}

--- Labels of samples first .. first+count−1 (numbered from 0): "balanced" goes round the classes, "drawn" draws each
--- uniformly from (seed, number), a list is used in turn.
---@return perigee.Tensor  int64 [count]
function M.labels(how, first, count, classes, seed)
  if how == "drawn" then
    local state = tensor.tensor({ seed, 0, first }, "int64")
    return ops.random_integers({ count }, { state = state, purpose = "sample label", high = classes })
  end
  local list = {}
  for k = 1, count do
    list[k] = type(how) == "table" and how[(first + k - 1) % #how + 1] or (first + k - 1) % classes
  end
  return tensor.tensor(list, { count }, "int64")
end

---@class perigee.GenerateOptions
---@field first? integer     the first sample's number: 0
---@field batch? integer     samples at a time, at most `count`: 64
---@field captures? table<perigee.Tensor, perigee.Tensor>  what stands for the student's parameters
---@field device? string     cpu
---@field progress? fun(done: number)  of settings.count

--- Draws samples in batches and hands each to `take(first, images, labels)`: the first one's number from 0, uint8
--- [b,H,W,C], int64 [b]; the images are freed when it returns. The data set's `decode` turns the final state into
--- values in [−1, 1] [b,C,H,W]; without one it is taken as such.
---@param recipe perigee.Recipe
---@param settings perigee.SampleSettings  in full (recipe/sampling.lua); `count` samples are drawn
---@param options? perigee.GenerateOptions
---@param take fun(first: integer, images: perigee.Tensor, labels: perigee.Tensor)
function M.each(recipe, settings, options, take)
  local o, student, count = options or {}, recipe.student, settings.count
  local matching = recipe:flow_matching()
    or core_ffi.fail("sample: the recipe '%s' trains no student that samples", recipe.name)
  local batch, begin = math.min(o.batch or 64, count), o.first or 0
  core_ffi.C.pg_tf32_set(recipe.tf32 and 1 or 0)
  local executable = field.compile(student, batch, { captures = o.captures, dtype = recipe.dtype, device = o.device })
  local shape = { batch, student.channels, student.size[1], student.size[2] }
  local done = 0
  while done < count do
    local first, wanted = begin + done, math.min(batch, count - done)
    local bytes, labels = tensor.tidy(function()
      local function noise(step)
        local state = tensor.tensor({ settings.seed, step, first }, "int64")
        return ops.random_normal(shape, { state = state, purpose = "sample noise", dtype = "float32" }):to "float64"
      end
      local labels = M.labels(settings.labels, first, batch, student.classes or 1, settings.seed)
      local velocity = field.new(executable, student, labels, {
        scale = settings.cfg, low = settings.interval[1], high = settings.interval[2], dtype = recipe.dtype,
      })
      local how = { sampler = settings.sampler, path = matching.path, noise = noise,
        each = o.progress and function(part) o.progress(done + wanted * part) end or nil }
      for key in pairs(samplers.find(settings.sampler).options) do how[key] = settings[key] end
      local x = samplers.integrate(velocity, noise(0), how)
      local values = recipe.data.decode and recipe.data:decode(x) or x
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

--- The samples of each() as one tensor.
---@param recipe perigee.Recipe
---@param settings perigee.SampleSettings
---@param options? perigee.GenerateOptions
---@return perigee.Tensor  uint8 [count,H,W,C]
function M.all(recipe, settings, options)
  local parts = {}
  M.each(recipe, settings, options, function(_, images) parts[#parts + 1] = images:clone() end)
  return #parts == 1 and parts[1] or ops.concat(parts, 1)
end

return M
