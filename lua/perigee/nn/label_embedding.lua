--- Class labels as vectors, with one more row for "no class" (the null label), which guidance needs.
local Embedding = require "perigee.nn.embedding"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local LabelEmbedding = module.class "label embedding"

---@class perigee.nn
---@field label_embedding fun(classes: integer, width: integer, deviation?: number): perigee.Module  y [B] -> [B,width]

---@param classes integer  labels are 0 … classes − 1; `classes` itself is the null label
---@param width integer
---@param deviation? number  of the first values, 0.02 by default
function LabelEmbedding:build(classes, width, deviation)
  self.null_label = classes
  local rows = Embedding(classes + 1, width, deviation and initialise.normal(deviation))
  self.table = rows.table
end

--- y [B] -> [B,width]
function LabelEmbedding:forward(y) return ops.embedding(self.table, y) end

--- Replaces each label by the null label with a probability. Random numbers come from `state`, for the purpose
--- "label drop".
---@param y perigee.Tensor|perigee.Value  [B]
function LabelEmbedding:drop(y, probability, state)
  if probability == 0 then return y end
  local draw = ops.random_uniform(y.shape, { state = state, purpose = "label drop", dtype = "float32" })
  local null = ops.fill(y.shape, { value = self.null_label, dtype = y.dtype })
  return ops.where(ops.less(draw, probability), null, y)
end

return LabelEmbedding
