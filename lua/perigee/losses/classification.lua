--- Cross-entropy of the student's class logits: trains a classifier, such as the teacher of recipes/quickstart.lua.
local check = require "perigee.core.check"
local ops = require "perigee.core.ops"

---@class perigee.losses
---@field classification fun(options?: { name?: string }): perigee.Loss

---@param options? { name?: string }
---@return perigee.Loss
return function(options)
  local o = check.options("loss.classification", options or {}, { name = { "string", "classification" } })
  return {
    name = o.name, settings = {}, asks = { "classify" },
    compute = function(_, context)
      return ops.cross_entropy(context.student:classify(context:pixels()), context.labels)
    end,
  }
end
