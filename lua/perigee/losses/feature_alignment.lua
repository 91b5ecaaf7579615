--- Feature alignment (REPA, arXiv 2410.06940): −mean over images and patches of cos(projector(h), teacher's patch
--- token), h the output of block `block` (from 1). Where the grids differ, h is resampled bilinearly to the teacher's.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local nn = require "perigee.nn"
local ops = require "perigee.core.ops"
local time_weight = require "perigee.stage.time_weight"

---@class perigee.FeatureAlignmentOptions
---@field name? string      "features"
---@field block integer     the student's, from 1
---@field time_weight? fun(t: perigee.Value): perigee.Value  weights of the samples by their times
---  (stage/time_weight.lua)
---@field hidden? integer   width of the projector's hidden layers: 2048
---@field teacher? string   which, where the recipe has several

---@class perigee.losses
---@field feature_alignment fun(options: perigee.FeatureAlignmentOptions): perigee.Loss

---@param options perigee.FeatureAlignmentOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.feature_alignment", options, {
    name = { "string", "features" }, block = "count", hidden = { "count", 2048 }, teacher = { "string" },
    time_weight = { "function" },
  })
  return {
    name = o.name, needs_teacher = true, teacher = o.teacher, asks = { "depth", "width", "grid" },
    settings = { block = o.block, hidden = o.hidden, teacher = o.teacher }, code = o.time_weight,
    validate = function(_, student)
      if o.block > student.depth then
        core.fail("loss '%s': block %d of a student with %d blocks", o.name, o.block, student.depth)
      end
    end,
    modules = function(_, student, teacher)
      return { projector = nn.projector { width = student.width, hidden = o.hidden, out = teacher.width } }
    end,
    compute = function(_, context)
      local h = ops.resize_tokens(context:tap("block " .. o.block),
        { from = context.student.grid, to = context:teacher_grid(o.teacher) })
      local projected = time_weight.apply(o.name, o.time_weight, context, context.modules[o.name].projector(h))
      local value = ops.feature_alignment(projected, ops.stop_gradient(context:teacher_features(o.teacher).patches))
      context.left[o.name] = value
      return value
    end,
    progress = function(_, _, value) return { cosine = -value } end,
    per_sample = function(_, context) return -ops.mean(context.left[o.name].node.cosine, 2) end,
  }
end
