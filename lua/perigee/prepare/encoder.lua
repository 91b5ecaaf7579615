--- Pictures to the mean and deviation of their latents: the autoencoder that a file of weights holds, and one planned
--- program, so that memory is bounded by the batch.
local core = require "perigee.core"
local models = require "perigee.models"
local ops = require "perigee.core.ops"

local fail = require("perigee.core.ffi").fail
local M = {}

---@class perigee.Encoder
---@field model perigee.AutoencoderKl|perigee.AutoencoderTiny
---@field batch integer
local Encoder = {}
Encoder.__index = Encoder

local LEAST = -30 -- of a log-variance, as encoders bound it

--- The moments [B,2C,h,w] of pictures uint8 [B,H,W,3], which go in as x/127.5 − 1.
local function moments(model, pixels, log_variance)
  local mean, deviation = model:encode(ops.images(pixels, { scale = 2 / 255, offset = -1, dtype = "float32" }))
  if log_variance then deviation = ops.clamp(2 * ops.log(deviation), LEAST, nil) end
  return ops.concat({ mean, deviation }, 2)
end

---@class perigee.EncoderOptions
---@field weights string
---@field size integer           side of the pictures
---@field batch integer          at a time
---@field device string
---@field log_variance? boolean  in the deviation's place

--- The model that a file of weights holds, without its weights. An error unless it encodes pictures of that size.
---@param path string
---@param size integer  side of the pictures
---@return perigee.AutoencoderKl|perigee.AutoencoderTiny
function M.check(path, size)
  local model = models.autoencoder { weights = path }
  if not model.encoder then fail("--vae %s: it holds a decoder alone; expected an encoder's weights", path) end
  if size % model.shrink ~= 0 then
    fail("--size %d: %s makes latents of pictures whose sides are multiples of %d", size, path, model.shrink)
  end
  return model
end

--- Loads the weights and plans.
---@param o perigee.EncoderOptions
---@return perigee.Encoder
function M.open(o)
  local model = M.check(o.weights, o.size)
  local self = setmetatable({ model = model, batch = o.batch, device = o.device }, Encoder)
  self.flat = model:materialise({ device = o.device, purpose = "signal" }).flat
  local p = core.program.new "encode"
  local x = p:input("images", { o.batch, o.size, o.size, 3 }, "uint8")
  local result = p:trace(function(pixels) return moments(model, pixels, o.log_variance) end, x)
  self.executable = core.executable.compile(p, { { name = "moments", value = result } },
    { device = o.device, purpose = "signal" })
  return self
end

--- float32 [n,2C,h,w] on the CPU, of pictures uint8 [n,H,W,3], at most a batch.
---@param pixels perigee.Tensor
---@return perigee.Tensor
function Encoder:encode(pixels)
  local n = pixels.shape[1]
  local x = n == self.batch and pixels:contiguous()
    or ops.concat({ pixels, ops.fill({ self.batch - n, unpack(pixels.shape, 2) }, { value = 0, dtype = "uint8" }) }, 1)
  return self.executable:run({ images = x:to(self.device) }).moments:clone({ device = "cpu" }):narrow(1, 1, n)
end

--- Gives the memory back.
function Encoder:close()
  self.executable:free()
  self.model:dematerialise()
  self.flat:free()
end

return M
