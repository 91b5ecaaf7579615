--- A table of vectors, one for each index; indices count from 0, as data files do.
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local Embedding = module.class "embedding"

---@class perigee.nn
---@field embedding fun(count: integer, width: integer, first?: function): perigee.Module  index [..] -> [..,width]

---@param count integer  rows of the table
---@param width integer
---@param first? function  initialiser, N(0, 0.02²) by default
function Embedding:build(count, width, first)
  self.table = module.parameter({ count, width }, first or initialise.normal(0.02))
end

--- index [..] -> [..,width]
function Embedding:forward(index) return ops.embedding(self.table, index) end

return Embedding
