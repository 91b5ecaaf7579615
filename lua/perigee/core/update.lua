--- The form of an optimiser's op: one step in place over flat buffers of one length, with clipping by the gradient's
--- norm, the moving average and the working copy.
local op = require "perigee.core.op"

local M = {}

--- Defines such an op, whose views are parameters, the moments, average?, working?, gradient, hyper, square_sum.
--- Returns the function that records it and takes these by name.
---@param definition { name: string, moments: string[], flops: integer }  flops of one element
---@return fun(fields: table<string, perigee.Tensor|perigee.Value>)
function M.define(definition)
  local inputs, sized = { "parameters" }, {}
  local mutates = { "parameters" }
  for _, moment in ipairs(definition.moments) do
    inputs[#inputs + 1], mutates[#mutates + 1], sized[#sized + 1] = moment, moment, moment
  end
  for _, name in ipairs { "average?", "working?", "gradient", "hyper", "square_sum" } do inputs[#inputs + 1] = name end
  for _, name in ipairs { "average", "working" } do
    mutates[#mutates + 1], sized[#sized + 1] = name, name
  end
  sized[#sized + 1] = "gradient"

  local record = op.define {
    name = definition.name,
    inputs = inputs,
    outputs = {},
    results = 0,
    mutates = mutates,
    instance = function(n) return n.inputs[1].dtype end,
    shape = function(a)
      local count = op.numel(a.parameters.shape)
      for _, name in ipairs(sized) do
        local x = a[name]
        if x and op.numel(x.shape) ~= count then
          op.fail("%s: parameters are %s, %s is %s", definition.name, op.shape_text(a.parameters.shape), name,
            op.shape_text(x.shape))
        end
      end
      return {}
    end,
    flops = function(a) return definition.flops * op.numel(a.parameters.shape) end,
  }

  return function(fields)
    local list, known = {}, {}
    for k, name in ipairs(record.inputs) do list[k], known[name] = fields[name] or nil, true end
    for key in pairs(fields) do
      if not known[key] then op.fail("%s: unknown field '%s'", definition.name, tostring(key)) end
    end
    record(unpack(list, 1, #record.inputs))
  end
end

return M
