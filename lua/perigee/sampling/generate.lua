--- Samples by number: sample k has its noise and conditions from (seed, k) alone, whatever the batch size, so that a
--- set of samples can be made in pieces, in any order, and taken up again after an interruption.
local conditions = require "perigee.stage.conditions"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local decoders = require "perigee.sampling.decoder"
local field = require "perigee.sampling.field"
local guides = require "perigee.sampling.guide"
local pixels = require "perigee.sampling.pixels"
local samplers = require "perigee.samplers"
local values = require "perigee.sampling.values"
local ops, tensor = core.ops, core.tensor

local M = {}

---@class perigee.SampleForm
---@field pixels boolean  pictures; otherwise latents, as the student makes them
---@field dtype string    uint8, of latents float32
---@field shape integer[] { height, width, channels }, of latents { channels, height, width }

--- The autoencoder that decodes a recipe's samples: the given one, or the recipe's own; nil: none does.
---@param recipe perigee.Recipe
---@param decode? table|false  false: none
local function autoencoder_of(recipe, decode)
  local model = decode == nil and recipe.decode or decode or nil
  if model then decoders.check(model, recipe.student) end
  return model
end

--- How a recipe's samples come out. An autoencoder decodes them: `decode`, or the recipe's. Otherwise the data set's
--- `decode` turns what the student makes into pictures; without one, 1 or 3 channels are taken for pictures, and other
--- numbers of channels stay latents.
---@param recipe perigee.Recipe
---@param decode? table|false  an autoencoder; false: latents stay latents
---@return perigee.SampleForm
function M.form(recipe, decode)
  local student, decoded = recipe.student, recipe.data.decode ~= nil
  local channels, height, width = student.channels, student.size[1], student.size[2]
  local model = autoencoder_of(recipe, decode)
  if model then return { pixels = true, dtype = "uint8", shape = decoders.shape(model, student.size) } end
  if not decoded and channels ~= 1 and channels ~= 3 then
    return { pixels = false, dtype = "float32", shape = { channels, height, width } }
  end
  if decoded then
    local shape = tensor.tidy(function()
      return recipe.data:decode(ops.fill({ 1, channels, height, width }, { value = 0, dtype = "float64" })).shape
    end)
    channels, height, width = shape[2], shape[3], shape[4]
  end
  return { pixels = true, dtype = "uint8", shape = { height, width, channels } }
end

---@class perigee.GenerateOptions
---@field first? integer     the first sample's number: 0
---@field batch? integer     samples at a time, at most `count`: 64
---@field captures? table<perigee.Tensor, perigee.Tensor>  what stands for the student's parameters
---@field device? string     cpu
---@field decode? table|false  the autoencoder that decodes samples: the recipe's; false: none
---@field tile? integer      side of the tiles in which it decodes larger latents, in their pixels
---@field pixels? "floor"|"dit"  how values become bytes (sampling/pixels.lua): floor
---@field progress? fun(done: number)  of settings.count

--- Draws samples in batches and hands each to `take(first, images, labels)`: the first one's number from 0, samples
--- [b,...] in the recipe's form(), int64 [b] (0 where the student takes none); the samples are freed when it returns.
--- The data set's `decode` turns the final state into values in [−1, 1] [b,C,H,W]; without one it is taken as such.
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
  local list = conditions.resolve(student, recipe.data)
  local given = values.open("sample", recipe, list, settings)
  local executable = field.compile(student, list, batch,
    { captures = o.captures, dtype = recipe.dtype, device = o.device })
  local guide = settings.guide and guides.open(recipe, settings.guide, batch, o.device)
  local shape = { batch, student.channels, student.size[1], student.size[2] }
  local form, done, to_bytes = M.form(recipe, o.decode), 0, pixels[o.pixels or "floor"]
  local model = autoencoder_of(recipe, o.decode)
  local decoder = model and decoders.open(model, student.size,
    { batch = math.min(batch, decoders.BATCH), tile = o.tile, device = o.device,
      unscale = recipe.data.unscale and function(z) return recipe.data:unscale(z) end or nil })
  while done < count do
    local first, wanted = begin + done, math.min(batch, count - done)
    local samples, labels = tensor.tidy(function()
      local function noise(step)
        local state = tensor.tensor({ settings.seed, step, first }, "int64")
        return ops.random_normal(shape, { state = state, purpose = "sample noise", dtype = "float32" }):to "float64"
      end
      local conditioned = given:of(first, batch)
      local labels = conditioned.labels
      local velocity = field.new(executable, student, list, conditioned, {
        scale = settings.cfg, low = settings.interval[1], high = settings.interval[2], dtype = recipe.dtype,
        channels = settings.cfg_channels, guide = guide and guide:field(conditioned),
        captures = o.captures, path = matching.path, prediction = matching.prediction,
        least_sigma = matching.least_sigma,
      })
      local how = { sampler = settings.sampler, path = matching.path, noise = noise,
        each = o.progress and function(part) o.progress(done + wanted * part) end or nil }
      for key in pairs(samplers.find(settings.sampler).options) do how[key] = settings[key] end
      local x = samplers.integrate(velocity, noise(0), how)
      if wanted < batch then x, labels = x:narrow(1, 1, wanted), labels:narrow(1, 1, wanted):contiguous() end
      if decoder then return decoder:decode(x, to_bytes), labels end
      local made = (recipe.data.decode and recipe.data:decode(x) or x):to "float32"
      return form.pixels and to_bytes(made) or made:contiguous(), labels
    end)
    take(first, samples, labels)
    samples:free()
    done = done + wanted
  end
  given:close()
  executable:free()
  if guide then guide:close() end
  if decoder then decoder:close() end
end

--- The samples of each() as one tensor.
---@param recipe perigee.Recipe
---@param settings perigee.SampleSettings
---@param options? perigee.GenerateOptions
---@return perigee.Tensor  [count,...] in the recipe's form()
function M.all(recipe, settings, options)
  local parts = {}
  M.each(recipe, settings, options, function(_, images) parts[#parts + 1] = images:clone() end)
  return #parts == 1 and parts[1] or ops.concat(parts, 1)
end

return M
