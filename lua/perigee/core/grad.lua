--- Reverse-mode differentiation, from program to program: each node's vjp records the nodes of its gradient.
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local tensor = require "perigee.core.tensor"

local M = {}

local function ops() return require "perigee.core.ops" end

--- Values that depend on any of `sources`, among the first `count` nodes.
local function reached_from(program, sources, count)
  local reached = {}
  for _, v in ipairs(sources) do reached[v] = true end
  for k = 1, count do
    local node = program.nodes[k]
    local any = false
    for _, v in ipairs(node.inputs) do any = any or (v and reached[v]) end
    if any and not node.definition.cuts_gradient then
      for _, v in ipairs(node.outputs) do
        if core.is_floating[v.dtype] then reached[v] = true end
      end
    end
  end
  return reached
end

--- Gradients that arrive in pieces (from narrow views) tile a dimension often enough to be concatenated; else each
--- piece is padded with zeros and added.
local function join_pieces(v, pieces)
  local dim, total = pieces[1].dim, 0
  table.sort(pieces, function(a, b) return a.start < b.start end)
  local tiles = true
  for _, p in ipairs(pieces) do
    tiles = tiles and p.dim == dim and p.start == total + 1
    total = p.start + p.length - 1
  end
  if tiles and total == v.shape[dim] and #pieces <= 14 then
    local list = {}
    for k, p in ipairs(pieces) do list[k] = p.gradient end
    return ops().concat(list, dim)
  end
  local sum
  for _, p in ipairs(pieces) do
    local padded = ops().narrow_backward(p.gradient, { dim = p.dim, start = p.start, size = v.shape[p.dim] })
    sum = sum and ops().add(sum, padded) or padded
  end
  return sum
end

--- Records the nodes of a recomputed segment again, over its clones and what lies outside it.
local function clone_segment(program, segment, count, reached)
  local clones = {}
  for k = 1, count do
    local node = program.nodes[k]
    if node.segment == segment then
      local inputs = {}
      for i, v in ipairs(node.inputs) do inputs[i] = v and (clones[v] or v) end
      local copy = program:clone_node(node, inputs)
      clones[node] = copy
      for i, v in ipairs(node.outputs) do
        clones[v] = copy.outputs[i]
        reached[copy.outputs[i]] = reached[v]
      end
    end
  end
  return clones
end

-- ---- gradients by value, while they are added up ------------------------------------------------------------------

local Sums = {}
Sums.__index = Sums

function Sums:add(v, gradient)
  if not layout.same_shape(v.shape, gradient.shape) then
    error(("internal: a gradient %s for a value %s"):format(core.shape_text(gradient.shape),
      core.shape_text(v.shape)))
  end
  self.whole[v] = self.whole[v] and ops().add(self.whole[v], gradient) or gradient
end

--- The gradient of some places of a dimension of v, { dim, start, length, gradient }.
function Sums:add_piece(v, piece)
  self.pieces[v] = self.pieces[v] or {}
  table.insert(self.pieces[v], piece)
end

--- All of v's gradient so far, or nil.
function Sums:total(v)
  local pieces = self.pieces[v]
  if pieces then
    self.pieces[v] = nil
    self:add(v, join_pieces(v, pieces))
  end
  return self.whole[v]
end

-- ---- from outputs to inputs -----------------------------------------------------------------------------------------

--- The gradients of a node's outputs, nil where nothing flows; nil if nothing flows at all.
local function incoming_of(node, sums, reached)
  local incoming, any = {}, false
  for i, v in ipairs(node.outputs) do
    if reached[v] then incoming[i] = sums:total(v) end
    any = any or incoming[i] ~= nil
  end
  return any and incoming or nil
end

--- Adds to the gradients of a node's inputs. `subject` is the node, or its clone where it is recomputed.
local function step_back(node, subject, incoming, sums, reached)
  local definition = node.definition
  if definition.piece then
    local dim, start, length = definition.piece(node)
    sums:add_piece(node.inputs[1], { dim = dim, start = start, length = length, gradient = incoming[1] })
    return
  end
  if not definition.vjp then core.fail("%s has no gradient", definition.name) end
  subject.wanted = reached
  local results = definition.vjp(subject, unpack(incoming, 1, #node.outputs))
  for i, name in ipairs(definition.inputs) do
    local x = node.inputs[i]
    if x and reached[x] and results[name] then sums:add(x, results[name]) end
  end
end

--- Gradients of the sum of seed·output with respect to the values in `wrt`.
---@param outputs perigee.Value[]
---@param seeds table        one value or tensor an output, of its shape
---@param wrt perigee.Value[]
---@return table  one value for each of `wrt`; false where nothing flows
function M.gradient(program, outputs, seeds, wrt)
  local count = #program.nodes
  local reached = reached_from(program, wrt, count)
  local sums = setmetatable({ whole = {}, pieces = {} }, Sums)
  for k, v in ipairs(outputs) do
    local seed = seeds[k]
    if reached[v] then sums:add(v, tensor.is_tensor(seed) and program:capture(seed) or seed) end
  end
  local segments = {} -- clones of recomputed ones
  for k = count, 1, -1 do
    local node = program.nodes[k]
    local incoming = incoming_of(node, sums, reached)
    if incoming then
      local segment, subject = node.segment, node
      if segment then
        segments[segment] = segments[segment] or clone_segment(program, segment, count, reached)
        subject = segments[segment][node]
      end
      step_back(node, subject, incoming, sums, reached)
    end
  end
  local result = {}
  for k, v in ipairs(wrt) do result[k] = sums:total(v) or false end
  for k = count + 1, #program.nodes do program.nodes[k].backward = true end
  return result
end

return M
