--- Patch embedding: an image cut into square patches, each projected to a token. The convolution with kernel = stride =
--- patch that public checkpoints hold, [D,C,p,p], is this weight [D,C·p·p] under another shape.
local check = require "perigee.core.check"
local initialise = require "perigee.nn.initialise"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

local PatchEmbedding = module.class "patch embedding"

---@class perigee.nn
---@field patch_embedding fun(channels: integer, patch: integer, width: integer, options?: table): perigee.Module

local rules = { bias = { "boolean", true } }

---@param channels integer
---@param patch integer
---@param width integer
---@param options? { bias?: boolean }  true
function PatchEmbedding:build(channels, patch, width, options)
  self.channels, self.patch = channels, patch
  self.weight = module.parameter({ width, channels * patch * patch }, initialise.xavier_uniform,
    { public_shape = { width, channels, patch, patch } })
  if check.options("patch_embedding", options or {}, rules).bias then
    self.bias = module.parameter({ width }, initialise.zeros)
  end
end

--- x [B,C,H,W] -> [B,(H/p)(W/p),D], row by row
function PatchEmbedding:forward(x)
  local height, width = x.shape[3], x.shape[4]
  if #x.shape ~= 4 or x.shape[2] ~= self.channels or height % self.patch ~= 0 or width % self.patch ~= 0 then
    core.fail("patch embedding: expected [B,%d,H,W] with H and W multiples of %d, got %s", self.channels, self.patch,
      core.shape_text(x.shape))
  end
  return ops.linear(ops.patchify(x, { patch = self.patch, order = "channels_first" }), self.weight, self.bias)
end

return PatchEmbedding
