--- Rematerialisation: a cheap value is computed again for the backward pass instead of being kept for it.
---
--- Of a transformer block's activations a third are outputs of GELU and of the layer normalisations (6 of 18 widths a
--- token with an MLP of four): the gradients of the linear layers after them need them, and they follow in one pass
--- from values that are kept anyway. So does the second normalisation's input, a gated residual: one width more. An
--- op's `recompute` says that its first output is of this kind: `true`, or a function of the node that returns the
--- definition, inputs and attributes of a call whose first output it is, or nothing.
---
--- A recomputed value may read another one, DEEPEST calls in a row: without that end a block's
--- input would come from the block before it, and so on from the first one.
local program_module = require "perigee.core.program"

local storage = program_module.storage

local DEEPEST = 2

local M = {}

--- The call that makes a node's first output again, or nothing.
local function again(node)
  local recompute = node.definition.recompute
  if recompute == true then return node.definition, { unpack(node.inputs) }, node.attributes end
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

--- The readers of a value in the backward pass, the first of them, and how many calls in a row its copy would begin.
local function of_backward(readers, at, depth)
  local list, first, deepest = {}, nil, 0
  for _, node in ipairs(readers or {}) do
    if node.backward then
      list[#list + 1] = node
      if not first or at[node] < at[first] then first = node end
      deepest = math.max(deepest, depth[node] or 0)
    end
  end
  return list, first, deepest + 1
end

--- Rewrites a fused program's list of nodes. `outputs` stay what they are.
function M.run(program, outputs)
  local is_output = {}
  for _, v in ipairs(outputs) do is_output[v] = true end
  local nodes = program:live_nodes(outputs)
  local readers_of, at = program_module.readers(nodes), program_module.positions(nodes)
  local last, depth, before = program_module.last_reads(nodes), {}, {}
  for k = #nodes, 1, -1 do -- what reads comes before what it reads
    local node = nodes[k]
    local v = node.outputs[1]
    if node.definition.recompute and not node.backward and not is_output[v] then
      local readers, first, deep = of_backward(readers_of[v], at, depth)
      local definition, inputs, attributes = again(node)
      if first and definition and deep <= DEEPEST and alive(inputs, last, at[first]) then
        local copy = program:make_node(definition, inputs, attributes, specs(node, definition))
        copy.backward, at[copy], depth[copy] = true, at[first], deep
        for _, reader in ipairs(readers) do
          for i, x in ipairs(reader.inputs) do
            if rawequal(x, v) then reader.inputs[i] = copy.outputs[1] end
          end
        end
        for _, x in ipairs(inputs) do
          if x and readers_of[x] then table.insert(readers_of[x], copy) end
        end
        before[at[first]] = before[at[first]] or {}
        table.insert(before[at[first]], 1, copy)
      end
    end
  end
  local list = {}
  for k, node in ipairs(nodes) do
    for _, copy in ipairs(before[k] or {}) do list[#list + 1] = copy end
    list[#list + 1] = node
  end
  program.nodes = list
end

return M
