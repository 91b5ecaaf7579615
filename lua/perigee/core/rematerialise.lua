--- Rematerialisation: what is cheap to compute is computed again for the backward pass instead of being kept for it.
---
--- Of a transformer block's activations a third are outputs of GELU and of the layer normalisations (6 of 18 widths a
--- token with an MLP of four): the gradients of the linear layers after them need them, and they follow in one pass
--- from what is kept anyway. An op's `recompute` says that its first output is of this kind: `true`, or a function of
--- the node that returns the definition, inputs and attributes of a call whose first output it is, or nothing.
local program_module = require "perigee.core.program"

local storage = program_module.storage

local M = {}

--- The call that makes a node's first output anew, or nothing.
local function again(node)
  local recompute = node.definition.recompute
  if recompute == true then return node.definition, node.inputs, node.attributes end
  if recompute then return recompute(node) end
end

--- Shapes and dtypes of what that call makes: those of the node's outputs, of which another op may make the first
--- alone.
local function specs(node, definition)
  local list = {}
  for k = 1, #definition.outputs do list[k] = { node.outputs[k].shape, node.outputs[k].dtype } end
  return list
end

--- Are all of these there anyway at position k?
local function alive(inputs, last, k)
  for _, v in ipairs(inputs) do
    local base = v and storage(v)
    if base and base.node and (last[base] or 0) < k then return false end
  end
  return true
end

--- Those of some nodes that belong to the backward pass.
local function of_backward(nodes)
  local list = {}
  for _, node in ipairs(nodes or {}) do
    if node.backward then list[#list + 1] = node end
  end
  return list
end

--- Rewrites a fused program's list of nodes. `outputs` stay what they are.
function M.run(program, outputs)
  local is_output = {}
  for _, v in ipairs(outputs) do is_output[v] = true end
  local nodes = program:live_nodes(outputs)
  local readers_of, position = program_module.readers(nodes), program_module.positions(nodes)
  local last, before = program_module.last_reads(nodes), {}
  for _, node in ipairs(nodes) do
    local v = node.outputs[1]
    if node.definition.recompute and not node.backward and not is_output[v] then
      local readers = of_backward(readers_of[v])
      local first = readers[1]
      local definition, inputs, attributes = again(node)
      if first and definition and alive(inputs, last, position[first]) then
        local copy = program:make_node(definition, inputs, attributes, specs(node, definition))
        copy.backward = true
        for _, reader in ipairs(readers) do
          for i, x in ipairs(reader.inputs) do
            if rawequal(x, v) then reader.inputs[i] = copy.outputs[1] end
          end
        end
        before[first] = before[first] or {}
        table.insert(before[first], copy)
      end
    end
  end
  local list = {}
  for _, node in ipairs(nodes) do
    for _, copy in ipairs(before[node] or {}) do list[#list + 1] = copy end
    list[#list + 1] = node
  end
  program.nodes = list
end

return M
