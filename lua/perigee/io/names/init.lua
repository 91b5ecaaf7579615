--- Tables of names: what public checkpoints call their tensors, and what modules call them here. One file a table:
---
---   { what = "REPA's and HASTE's SiT",       -- for messages
---     family = "sit",                         -- the models that hold it: of models/sit.lua
---     marks = { "x_embedder.proj.weight" },   -- names that every such file has
---     { ours, theirs }, ...                   -- "#": a position, from 1 here and from 0 there; "*": the last part of
---                                             -- a name; theirs may be a list of names, whose tensors follow one
---                                             -- another along the first dimension here; false in it: zeros
---     convert = { [ours] = "..." },           -- tensors whose values differ: a conversion of io/conversions.lua
---     pointwise = { "%.qkv%.weight$" },       -- our matrices, by patterns, that are 1×1 convolutions in a file
---     flat = { class_token = true },          -- tensors whose leading dimensions of 1 are not there
---     epsilon = 1e-12,                        -- of the layer norms that the weights were trained with
---     outputs = 2,                            -- a file's output layer has so many times the model's channels
---     ignored = { "head." },                  -- beginnings of names that a file may have and a model need not
---     fixed = { pos_embed = "position" },     -- tensors that may be there and must then agree with a model's buffer
---     aliases = { [name] = "misspelt" },      -- names that some files have instead
---     plain = true,                           -- taken where several tables fit and say the same
---     of_model = "^SiT",                      -- what a training script's argument `model` begins with
---     note = "..." }                          -- what an import should say
local room = require "perigee.core.room"

local M = {}

--- A table that has another's rows, and what `changes` says differently.
function M.like(base, changes)
  local made = {}
  for k, pair in ipairs(base) do made[k] = pair end
  for _, key in ipairs { "family", "ignored", "fixed", "marks", "flat", "epsilon" } do made[key] = base[key] end
  for key, value in pairs(changes) do made[key] = value end
  return made
end

return room.open({ module = "perigee.io.names", what = "table of names" }, M)
