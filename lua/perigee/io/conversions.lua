--- Conversions between a public checkpoint's tensors and a model's, where the values differ and not the names alone: by
--- the names that tables of names (io/names/) give them. Each has `shape(ours, model)`, the public tensor's shape, and
--- `inward(theirs, model)` and `outward(ours, model)`, float tensors to float tensors on the CPU.
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

--- The last layer of a model with a learned variance has 2·C outputs a pixel, of which the first C are the prediction.
--- A model here has either both or the first C alone.
local function with_sigma(sign)
  local function doubled(shape) return { 2 * shape[1], unpack(shape, 2) } end
  return {
    shape = function(shape, model) return model.learned_variance and shape or doubled(shape) end,
    inward = function(theirs, model)
      local shape, channels = theirs.shape, model.channels
      local pixels = theirs:reshape { shape[1] / (2 * channels), 2 * channels, shape[2] or 1 }
      local kept = ops.mul(pixels:narrow(2, 1, channels), sign)
      if not model.learned_variance then return kept:reshape { shape[1] / 2, unpack(shape, 2) } end
      return ops.concat({ kept, pixels:narrow(2, channels + 1, channels) }, 2):reshape(shape)
    end,
    outward = function(ours, model)
      local shape, channels = ours.shape, model.channels
      local given = (model.learned_variance and 2 or 1) * channels
      local pixels = ours:reshape { shape[1] / given, given, shape[2] or 1 }
      local prediction = ops.mul(pixels:narrow(2, 1, channels), sign)
      local variance = model.learned_variance and pixels:narrow(2, channels + 1, channels)
        or tensor.empty(prediction.shape, pixels.dtype):fill_(0)
      return ops.concat({ prediction, variance }, 2):reshape(model.learned_variance and shape or doubled(shape))
    end,
  }
end

M.sigma = with_sigma(1)
M.sigma_and_sign = with_sigma(-1) -- and the prediction points the other way

--- Weights [D,2·F] over cos(ωt) ‖ sin(ωt) that see 1 − t instead of t: cos(ω − ωt) = cos ω cos ωt + sin ω sin ωt, and
--- sin(ω − ωt) = sin ω cos ωt − cos ω sin ωt. Twice is nothing. In float64, rounded once.
local function reverse_time(given)
  local rows, columns = given.shape[1], given.shape[2]
  local half = columns / 2
  return tensor.tidy(function()
    local made = tensor.empty({ rows, columns }, "float64")
    local from, to = given:to("float64"):contiguous():pointer(), made:pointer()
    for k = 0, half - 1 do
      local frequency = 10000 ^ (-k / half)
      local c, s = math.cos(frequency), math.sin(frequency)
      for row = 0, rows - 1 do
        local at = row * columns + k
        local a, b = from[at], from[at + half]
        to[at], to[at + half] = a * c + b * s, a * s - b * c
      end
    end
    return made:to(given.dtype)
  end)
end

--- The bias [3·D] of queries, keys and values with 0 for the keys': DINOv3 masks that.
local function without_key_bias(given)
  local width = given.shape[1] / 3
  local keys = tensor.empty({ width }, given.dtype):fill_(0)
  return ops.concat({ given:narrow(1, 1, width), keys, given:narrow(1, 2 * width + 1, width) }, 1)
end

M.no_key_bias = { shape = function(shape) return shape end, inward = without_key_bias, outward = without_key_bias }

M.reversed_time = { shape = function(shape) return shape end, inward = reverse_time, outward = reverse_time }

return M
