--- The autoencoder that a file of weights holds, of whichever family: for commands, which are given a file alone.
local core = require "perigee.core.ffi"
local models = require "perigee.models"
local weights = require "perigee.io.weights"

local FAMILIES = { autoencoder_kl = true, autoencoder_tiny = true }

---@class perigee.models
---@field autoencoder fun(options: perigee.AutoencoderOptions): perigee.AutoencoderKl|perigee.AutoencoderTiny

---@class perigee.AutoencoderOptions
---@field weights string  the file
---@field take? string    the part of it; by default what comes first there
---@field scale? number   what a student is trained on is (latent − shift)·scale
---@field shift? number

local M = {}

--- Reads the file's names and shapes, which decide the model's options. No shape shows `scale` and `shift`: they are
--- the model's own, and 1 and 0 for an AutoencoderKL of other than 4 channels, unless they are given.
function M.autoencoder(options)
  if type(options) ~= "table" or type(options.weights) ~= "string" then
    core.fail "autoencoder: option 'weights' is missing: the file that says what it is"
  end
  local file = weights.open(options.weights)
  local kind, why = weights.recognise(file)
  if not kind then core.fail("%s: %s", file.path, weights.sentence(why)) end
  local family = kind.table.family
  if not FAMILIES[family] then core.fail("%s: it is %s, not an autoencoder", file.path, kind.table.what) end
  local found = models[family].options_of(file, kind)
  found.scale, found.shift = options.scale, options.shift
  if family == "autoencoder_kl" and not found.scale and found.latent ~= 4 then found.scale = 1 end
  found.weights, found.names, found.take = options.weights, kind.names, options.take
  return models[family](found)
end

return M
