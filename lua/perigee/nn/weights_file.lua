--- A model that gets its first values from a file of weights: its fields `weights`, `names` and `take` say which.
local module = require "perigee.nn.module"
local tables = require "perigee.base.tables"
local weights = require "perigee.io.weights"

local M = {}

--- Materialises a model and reads its parameters from its file.
---@param model perigee.Module
---@param family string  of models, by which the file's kind is recognised (io/names)
---@param options? table  of Module:materialise
function M.materialise(model, family, options)
  local file = weights.open(model.weights)
  local kind = weights.kind(file, family, { names = model.names, take = model.take })
  local result = module.Module.materialise(model, tables.merged(options, { initialise = false }))
  weights.load(file, model, { names = kind.names, prefix = kind.prefix })
  return result
end

return M
