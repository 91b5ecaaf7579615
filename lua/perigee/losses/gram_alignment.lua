--- Gram alignment (DINOv3's Gram anchoring, arXiv 2508.10104): mean over images and pairs of patches of (S_ij − T_ij)²,
--- S = X·Xᵀ of the student's tokens after block `block` (from 1), each of length 1, T that of the teacher's patches.
--- It compares how patches resemble one another, so widths may differ: nothing is projected, and only the student is
--- trained. If the grids differ, X is first resampled bilinearly to the teacher's. In float32 at any precision.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local time_weight = require "perigee.stage.time_weight"

---@class perigee.GramAlignmentOptions
---@field name? string    "gram"
---@field block integer   the student's, from 1
---@field time_weight? fun(t: perigee.Value): perigee.Value  weights of the samples by their times
---  (stage/time_weight.lua)
---@field teacher? string  which, where the recipe has several

---@class perigee.losses
---@field gram_alignment fun(options: perigee.GramAlignmentOptions): perigee.Loss

--- Cosines between the tokens of an image: [B,N,D] -> [B,N,N]. A token of zeros has cosine 0 with all.
local function gram(x)
  x = x:to(op.stat(x.dtype))
  local unit = x * ops.rsqrt(ops.sum(x * x, -1, { keep = true }) + 1e-24)
  return ops.matmul(unit, ops.transpose(unit))
end

---@param options perigee.GramAlignmentOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.gram_alignment", options, {
    name = { "string", "gram" }, block = "count", teacher = { "string" }, time_weight = { "function" },
  })
  return {
    name = o.name, needs_teacher = true, teacher = o.teacher, asks = { "depth", "grid" },
    settings = { block = o.block, teacher = o.teacher }, code = o.time_weight,
    validate = function(_, student)
      if o.block > student.depth then
        core.fail("loss '%s': block %d of a student with %d blocks", o.name, o.block, student.depth)
      end
    end,
    compute = function(_, context)
      local h = ops.resize_tokens(context:tap("block " .. o.block),
        { from = context.student.grid, to = context:teacher_grid(o.teacher) })
      h = time_weight.apply(o.name, o.time_weight, context, h)
      return ops.mse(gram(h), gram(ops.stop_gradient(context:teacher_features(o.teacher).patches)))
    end,
  }
end
