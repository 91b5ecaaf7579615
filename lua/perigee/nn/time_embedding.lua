--- Time embedding: sinusoids of t at half as many frequencies as their width (max period 10000; cosines, then sines),
--- then two linear layers with SiLU between (DiT, arXiv 2212.09748).
local Linear = require "perigee.nn.linear"
local initialise = require "perigee.nn.initialise"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local TimeEmbedding = module.class "time embedding"

---@class perigee.nn
---@field time_embedding fun(width: integer, features?: integer, deviation?: number): perigee.Module  t [B] -> [B,width]

---@param width integer
---@param features? integer  width of the sinusoids, 256 by default
---@param deviation? number   of the first weights, 0.02 by default
function TimeEmbedding:build(width, features, deviation)
  self.features = features or 256
  local first = initialise.normal(deviation or 0.02)
  self.hidden = Linear(self.features, width, { activation = "silu", initialise = first })
  self.output = Linear(width, width, { initialise = first })
end

--- t [B] in [0,1] -> [B,width], in `dtype` (t's, where none is given)
function TimeEmbedding:forward(t, dtype)
  return self.output(self.hidden(ops.timestep_embedding(t, { width = self.features, dtype = dtype })))
end

return TimeEmbedding
