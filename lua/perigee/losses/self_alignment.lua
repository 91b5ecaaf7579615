--- Self-alignment (SRA, arXiv 2505.02831): −mean over images and tokens of cos(head(h), z), h the student's output of
--- block `student`, z that of block `teacher` of the student's own moving average, on the same image, noise and label
--- at a time that is less by up to `ahead`. The head, two linear layers with SiLU between, is trained. It needs no
--- teacher, and costs a forward pass of the student up to that block.
local Linear = require "perigee.nn.linear"
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local module = require "perigee.nn.module"
local ops = require "perigee.core.ops"

---@class perigee.SelfAlignmentOptions
---@field name? string      "self"
---@field student integer   a block, from 1: in SRA 8 of SiT-XL/2, 4 of SiT-B/2 ...
---@field teacher integer   ... and the later block of the average that it follows: 20; 8
---@field ahead? number     0.2

---@class perigee.losses
---@field self_alignment fun(options: perigee.SelfAlignmentOptions): perigee.Loss

local Head = module.class "self-alignment head"

function Head:build(width)
  self.hidden = Linear(width, 2 * width, { activation = "silu" })
  self.output = Linear(2 * width, width)
  self:assign_names()
end

function Head:forward(x) return self.output(self.hidden(x)) end

---@param options perigee.SelfAlignmentOptions
---@return perigee.Loss
return function(options)
  local o = check.options("loss.self_alignment", options, {
    name = { "string", "self" }, student = "count", teacher = "count", ahead = { "number", 0.2, least = 0, most = 1 },
  })
  if o.teacher < o.student then
    core.fail("loss '%s': the average's block %d comes before the student's block %d", o.name, o.teacher, o.student)
  end
  return {
    name = o.name, asks = { "depth", "width" },
    settings = { student = o.student, teacher = o.teacher, ahead = o.ahead },
    validate = function(_, student)
      if o.teacher > student.depth then
        core.fail("loss '%s': block %d of a student with %d blocks", o.name, o.teacher, student.depth)
      end
    end,
    modules = function(_, student) return { head = Head(student.width) } end,
    compute = function(_, context)
      local z = context:average_tap("block " .. o.teacher, o.ahead)
      return ops.feature_alignment(context.modules[o.name].head(context:tap("block " .. o.student)), z)
    end,
  }
end
