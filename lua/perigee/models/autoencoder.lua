--- The autoencoder that a file of weights holds, of whichever family: for commands, which are given a file and no model.
local core = require "perigee.core.ffi"
local models = require "perigee.models"
local weights = require "perigee.io.weights"

local FAMILIES = { autoencoder_kl = true, autoencoder_tiny = true }

---@class perigee.models
---@field autoencoder fun(options: { weights: string, take?: string, scale?: number, shift?: number }):
---  perigee.AutoencoderKl|perigee.AutoencoderTiny

local M = {}

--- Reads the file's names and shapes, which decide the model's options; `scale` and `shift`, which no shape shows, are
--- Stable Diffusion's 0.18215 and 0 for 4 channels and 1 and 0 for others, unless they are given. No tensor is read.
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
  if family == "autoencoder_kl" then
    found.scale = options.scale or found.latent == 4 and 0.18215 or 1
    found.shift = options.shift
  end
  found.weights, found.names, found.take = options.weights, kind.names, options.take
  return models[family](found)
end

return M
