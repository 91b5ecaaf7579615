--- How far the alignment has come, by loss: for feature alignment { cosine = to the teacher's }, for attention
--- alignment { cross_entropy = of the maps, teacher_entropy = below which it can't fall }, for others { loss = }. Over
--- random training images at times drawn as in training.
local check = require "perigee.core.check"
local progress = require "perigee.stage.progress"

---@class perigee.AlignmentProgressOptions
---@field name? string      "alignment_progress"
---@field images? integer   `micro`, those of one pass
---@field from? integer     100
---@field every? integer    100

---@class perigee.signals
---@field alignment_progress fun(options?: perigee.AlignmentProgressOptions): perigee.Signal

---@param options? perigee.AlignmentProgressOptions
---@return perigee.Signal
return function(options)
  local o = check.options("signal.alignment_progress", options or {}, {
    name = { "string", "alignment_progress" }, images = { "count" }, from = { "natural", 100 },
    every = { "count", 100 },
  })
  local function batches(run) return math.ceil((o.images or run.micro) / run.micro) end
  return {
    name = o.name, settings = o, holds = true,
    key = ("alignment_progress %s %d %d"):format(o.images or "", o.from, o.every),
    check = function(_, stage) progress.check("signal.alignment_progress", stage) end,
    measure = function(_, run, state)
      state = state or {}
      state.held = state.held or progress.build(run)
      return state.held:measure(run, batches(run)), state
    end,
    price = function(_, run)
      local cost = progress.price(run)
      cost.batches = batches(run)
      return cost
    end,
  }
end
