--- The samples of a run as pictures to evaluate (metrics/picture_source.lua): drawn as they are needed, so that nothing
--- but features is kept, and from any number on.
local core = require "perigee.core.ffi"
local generate = require "perigee.sampling.generate"
local json = require "perigee.io.json"
local picture_source = require "perigee.metrics.picture_source"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.RunSourceOptions : perigee.GenerateOptions
---@field name string      for messages
---@field weights string   a digest of what draws: of a checkpoint's weights
---@field told? table      what else decides the pictures

---@param recipe perigee.Recipe
---@param settings perigee.SampleSettings  in full
---@param options perigee.RunSourceOptions
---@return perigee.PictureSource
function M.of(recipe, settings, options)
  local form = generate.form(recipe, options.decode)
  if not form.pixels then
    core.fail("%s: its samples are latents [%s], and pictures are evaluated; give --decode FILE, of an autoencoder",
      options.name, table.concat(form.shape, ","))
  end
  return {
    name = options.name, count = settings.count, height = form.shape[1], width = form.shape[2],
    key = ("run %s %s"):format(options.weights, json.encode(tables.merged(settings, options.told or {}))),
    each = function(_, begin, batch, take)
      local left = settings.count - begin + 1
      if left == 0 then return end
      local how = { first = begin - 1, batch = options.batch, device = options.device, captures = options.captures,
        decode = options.decode, tile = options.tile, pixels = options.pixels }
      generate.each(recipe, tables.merged(settings, { count = left }), how, function(_, images)
        for first = 1, images.shape[1], batch do
          if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
          tensor.tidy(function()
            local count = math.min(batch, images.shape[1] - first + 1)
            take(picture_source.coloured(images:narrow(1, first, count):contiguous()))
          end)
        end
      end)
    end,
  }
end

return M
