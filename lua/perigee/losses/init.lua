--- Losses. A loss is a value: its settings, the modules it trains beside the student (`modules`), and a pure function
--- of a step's context (`compute`, see stage/context.lua) that returns one number.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"

---@class perigee.losses
local M = {}

---@class perigee.Loss
---@field name string             by which its weight is reached
---@field kind string
---@field needs_teacher? boolean
---@field settings table          for config.json
local Loss = {}
Loss.__index = Loss
function M.is_loss(x) return getmetatable(x) == Loss end

local function new(fields)
  fields.modules = fields.modules or function() return {} end
  return setmetatable(fields, Loss)
end

local function path_option(o)
  if o.path ~= "linear" and o.path ~= "cosine" then
    core.fail("loss.flow_matching: path is '%s'; there are 'linear' and 'cosine'", o.path)
  end
end

---@class perigee.FlowMatchingOptions
---@field name? string              "denoise"
---@field path? "linear"|"cosine"   linear
---@field time? perigee.Time        pg.time.uniform()

--- Flow matching (SiT, arXiv 2401.08740): mean over all elements of (v(x_t, t, y) − v)², v the path's velocity.
---@param options? perigee.FlowMatchingOptions
---@return perigee.Loss
function M.flow_matching(options)
  local o = check.options("loss.flow_matching", options or {}, {
    name = { "string", "denoise" }, path = { "string", "linear" },
    time = { "table", require("perigee.losses.time").uniform() },
  })
  path_option(o)
  return new {
    name = o.name, kind = "flow_matching", path = o.path, time = o.time,
    settings = { path = o.path, time = o.time.name, mu = o.time.mu, deviation = o.time.deviation },
    compute = function(_, context)
      local forward = context:forward()
      return ops.mse(forward.velocity, forward.target)
    end,
  }
end

local function grids_differ(a, b) return a[1] ~= b[1] or a[2] ~= b[2] end

---@class perigee.FeatureAlignmentOptions
---@field name? string      "features"
---@field block integer     the student's, from 1
---@field hidden? integer   width of the projector's hidden layers: 2048

--- Feature alignment (REPA, arXiv 2410.06940): −mean over images and patches of cos(projector(h), teacher's patch
--- token), h the output of block `block` (from 1). Where the grids differ, h is resampled bilinearly to the teacher's.
---@param options perigee.FeatureAlignmentOptions
---@return perigee.Loss
function M.feature_alignment(options)
  local o = check.options("loss.feature_alignment", options, {
    name = { "string", "features" }, block = "count", hidden = { "count", 2048 },
  })
  return new {
    name = o.name, kind = "feature_alignment", needs_teacher = true, block = o.block,
    settings = { block = o.block, hidden = o.hidden },
    validate = function(_, student)
      if o.block < 1 or o.block > student.depth then
        core.fail("loss '%s': block %d of a student with %d blocks", o.name, o.block, student.depth)
      end
    end,
    modules = function(_, student, teacher)
      return { projector = require("perigee.nn").projector { width = student.width, hidden = o.hidden,
        out = teacher.width } }
    end,
    compute = function(_, context)
      local h = context:tap("block " .. o.block)
      local from, to = context.student.grid, context:teacher_grid()
      if grids_differ(from, to) then h = ops.resize_tokens(h, { from = from, to = to, mode = "bilinear" }) end
      local projected = context.modules[o.name].projector(h)
      return ops.feature_alignment(projected, ops.stop_gradient(context:teacher_features().patches))
    end,
  }
end

---@class perigee.AttentionAlignmentOptions
---@field name? string         "attention"
---@field student integer[]    blocks of the student, from 1 ...
---@field teacher integer[]    ... and the block of the teacher that each follows
---@field heads? integer       the first so many of each: as many as both have
---@field head_map? { student: integer[], teacher: integer[] }  which heads go together, in place of `heads`

--- Attention alignment (ATTA, HASTE arXiv 2505.16792): mean over layer pairs, images, heads and query rows of −Σ_j
--- softmax(T)_ij · log softmax(S)_ij, S and T the student's and the teacher's logits between patches. The first
--- min(student's, teacher's, `heads`) heads take part unless `head_map = { student = {...}, teacher = {...} }` says
--- which.
---@param options perigee.AttentionAlignmentOptions
---@return perigee.Loss
function M.attention_alignment(options)
  local o = check.options("loss.attention_alignment", options, {
    name = { "string", "attention" }, student = "counts", teacher = "counts", heads = { "count" },
    head_map = { "table" },
  })
  if #o.student ~= #o.teacher or #o.student == 0 then
    core.fail("loss '%s': %d student blocks and %d teacher blocks; they go in pairs", o.name, #o.student, #o.teacher)
  end
  if o.head_map then
    local map = check.options(("loss '%s': head_map"):format(o.name), o.head_map,
      { student = "counts", teacher = "counts" })
    if #map.student ~= #map.teacher or #map.student == 0 then
      core.fail("loss '%s': head_map has %d student heads and %d teacher heads; they go in pairs", o.name,
        #map.student, #map.teacher)
    end
  end
  return new {
    name = o.name, kind = "attention_alignment", needs_teacher = true,
    settings = { student = o.student, teacher = o.teacher, heads = o.heads, head_map = o.head_map },
    validate = function(_, student, teacher)
      for k = 1, #o.student do
        if o.student[k] < 1 or o.student[k] > student.depth or o.teacher[k] < 1 or o.teacher[k] > teacher.depth then
          core.fail("loss '%s': student block %d to teacher block %d, of %d and %d", o.name, o.student[k], o.teacher[k],
            student.depth, teacher.depth)
        end
      end
      for side, model in pairs { student = student, teacher = teacher } do
        for _, head in ipairs(o.head_map and o.head_map[side] or {}) do
          if head > model.heads then
            core.fail("loss '%s': head_map names head %d of the %s, which has %d", o.name, head, side, model.heads)
          end
        end
      end
      if o.heads and (o.heads > student.heads or o.heads > teacher.heads) then
        core.fail("loss '%s': %d heads, where the student has %d and the teacher %d", o.name, o.heads,
          student.heads, teacher.heads)
      end
    end,
    compute = function(_, context)
      local from, to = context.student.grid, context:teacher_grid()
      local attributes, sum = {}, nil
      if o.head_map then attributes.student_heads, attributes.teacher_heads = o.head_map.student, o.head_map.teacher
      else attributes.heads = o.heads or math.min(context.student.heads, context.teacher.heads) end
      for k, block in ipairs(o.student) do
        local qkv = context:tap("qkv of block " .. block)
        if grids_differ(from, to) then qkv = ops.resize_tokens(qkv, { from = from, to = to, mode = "bilinear" }) end
        local theirs, skip = context:teacher_attention(o.teacher[k])
        attributes.teacher_skip = skip
        local value = ops.attention_alignment(qkv, ops.stop_gradient(theirs), attributes)
        sum = sum and sum + value or value
      end
      return sum * (1 / #o.student)
    end,
  }
end

--- Cross-entropy of the student's class logits: trains a classifier, such as the teacher of recipes/quickstart.lua.
---@param options? { name?: string }
---@return perigee.Loss
function M.classification(options)
  local o = check.options("loss.classification", options or {}, { name = { "string", "classification" } })
  return new {
    name = o.name, kind = "classification", settings = {},
    compute = function(_, context)
      return ops.cross_entropy(context.student:classify(context:pixels()), context.labels)
    end,
  }
end

---@class perigee.CustomLossOptions
---@field name string
---@field compute fun(self: perigee.Loss, context: perigee.Context): perigee.Value  one number
---@field modules? fun(self: perigee.Loss, student: perigee.Module, teacher?: perigee.Module): table<string,
---  perigee.Module>
---@field needs_teacher? boolean  the stage keeps the teacher
---@field settings? table         for config.json

--- A loss of one's own: `compute(self, context)` returns one number; `modules(self, student, teacher)` what it trains.
---@param options perigee.CustomLossOptions
---@return perigee.Loss
function M.custom(options)
  local o = check.options("loss.custom", options, {
    name = "string", compute = "function", modules = { "function" }, needs_teacher = { "boolean", false },
    settings = { "table", {} },
  })
  return new { name = o.name, kind = "custom", compute = o.compute, modules = o.modules,
    needs_teacher = o.needs_teacher, settings = o.settings }
end

return M
