--- On a GPU the gradient of a linear layer's bias is summed by the kernel that writes what it is the sum of: reading
--- that once more would take a pass over memory. A processor sums it with the gradient of the weight, whose operand it
--- is (core/ops/matmul.lua).
---
--- A definition whose kernel can do that has `column_sums = { of = OUTPUT, into = OUTPUT, when = function(node) }`:
--- sums over all but the last dimension of one output, in another one. The rule goes among its `fusions`.
local layout = require "perigee.core.layout"
local program_module = require "perigee.core.program"

local M = {}

--- Is v all of `base` as a matrix, whose rows are base's last dimension?
local function are_rows(v, base)
  local root, offset = program_module.storage(v)
  return rawequal(root, base) and offset == 0 and #v.shape == 2 and layout.is_contiguous(v)
    and v.shape[2] == base.shape[#base.shape] and layout.numel(v.shape) == layout.numel(base.shape)
end

--- The node that sums the columns of `base`, if there is one.
local function sum_of(graph, base)
  local list = { base }
  for _, v in ipairs(list) do -- it grows by the views of base
    for _, reader in ipairs(graph:readers(v)) do
      if reader.definition.view then list[#list + 1] = reader.outputs[1]
      elseif reader.definition.name == "sum" and reader.mask == 1 and are_rows(v, base)
        and #reader.outputs[1].shape == 1 then
        return reader
      end
    end
  end
end

local function can_sum(graph, node)
  local sums = node and node.definition.column_sums
  return graph.device ~= "cpu" and sums and not graph:is_used(node.outputs[sums.into])
    and (not sums.when or sums.when(node)) and sums
end

--- Will the kernel that makes the rows `v` sum their columns too?
function M.are_made_with(graph, v)
  local base = program_module.storage(v)
  local sums = can_sum(graph, base.node)
  return sums and rawequal(base.node.outputs[sums.of], base) and are_rows(v, base)
end

--- The rule.
function M.take_in(graph, node)
  local sums = can_sum(graph, node)
  local reader = sums and sum_of(graph, node.outputs[sums.of])
  if not reader then return end
  local replaces = { [reader.outputs[1]] = sums.into }
  for k, v in ipairs(node.outputs) do
    if k ~= sums.into then replaces[v] = k end
  end
  graph:rewrite(node, node.definition, node.inputs, node.attributes, replaces, { node, reader })
end

return M
