--- Fusion: rewriting a program's nodes into fewer, larger ones. The rules stand with the ops (`fusions` of a
--- definition): each is a function (graph, node) that is tried on every node of that op, in order.
local program_module = require "perigee.core.program"
local tables = require "perigee.base.tables"

local M = {}

local Graph = {}
Graph.__index = Graph

local function index(self)
  self.read_by, self.position = program_module.readers(self.nodes), program_module.positions(self.nodes)
end

--- The nodes that read a value.
function Graph:readers(v) return self.read_by[v] or {} end

--- The one node that reads v, if there is exactly one and v is no output of the program.
function Graph:only_reader(v)
  local readers = self:readers(v)
  return #readers == 1 and not self.outputs[v] and readers[1] or nil
end

--- Does any node read v, or is it an output?
function Graph:is_used(v) return self.outputs[v] or #self:readers(v) > 0 end

--- Do any of the values depend on what `node` makes?
function Graph:depends_on(values, node) -- luacheck: ignore self
  local stack, seen = {}, {}
  local function push(list)
    for _, v in ipairs(list) do
      local maker = v and v.node
      if maker and not seen[maker] then
        seen[maker] = true
        stack[#stack + 1] = maker
      end
    end
  end
  push(values)
  while #stack > 0 do
    local maker = table.remove(stack)
    if rawequal(maker, node) then return true end
    push(maker.inputs)
  end
  return false
end

--- Puts a new node in the place of `at` and lets its outputs stand for others: `replaces` maps an old value to the
--- number of the new node's output. `removed` lists the nodes that go. Inputs are values in the definition's order
--- (false: absent).
function Graph:rewrite(at, definition, inputs, attributes, replaces, removed)
  local spec_inputs = tables.copy(attributes)
  for k, name in ipairs(definition.inputs) do spec_inputs[name] = inputs[k] or nil end
  local full = {}
  for key in pairs(definition.attribute) do
    full[key] = attributes[key]
    if full[key] == nil then full[key] = definition.defaults[key] end
    spec_inputs[key] = full[key]
  end
  local node = self.program:make_node(definition, inputs, full, definition.shape(spec_inputs))
  node.backward = at.backward
  local gone, map = {}, {}
  for _, old in ipairs(removed) do gone[old] = true end
  for old, output in pairs(replaces) do
    map[old] = node.outputs[output]
    if self.outputs[old] then
      self.outputs[node.outputs[output]] = self.outputs[old]
      self.outputs[old] = nil
      self.substitute[old] = node.outputs[output]
    end
  end
  local list = {}
  for _, other in ipairs(self.nodes) do
    if rawequal(other, at) then list[#list + 1] = node end
    if not gone[other] then
      for i, v in ipairs(other.inputs) do
        if v and map[v] then other.inputs[i] = map[v] end
      end
      if not rawequal(other, node) then list[#list + 1] = other end
    end
  end
  self.nodes = list
  index(self)
  self.changed = true
end

--- The nodes in an order in which every input comes before its readers; otherwise as they stand.
local function sorted(nodes)
  local made_by, done, list, waiting = {}, {}, {}, {}
  for _, node in ipairs(nodes) do
    for _, v in ipairs(node.outputs) do made_by[v] = node end
  end
  local emit
  local function missing(node)
    for _, v in ipairs(node.inputs) do
      local maker = v and made_by[v]
      if maker and not done[maker] then return maker end
    end
  end
  function emit(node)
    local maker = missing(node)
    if maker then
      waiting[maker] = waiting[maker] or {}
      table.insert(waiting[maker], node)
      return
    end
    done[node] = true
    list[#list + 1] = node
    local held = waiting[node]
    waiting[node] = nil
    for _, other in ipairs(held or {}) do emit(other) end
  end
  for _, node in ipairs(nodes) do emit(node) end
  if #list ~= #nodes then error "internal: a fusion made the program cyclic" end
  return list
end

--- Applies every rule until none changes anything. `outputs` is a list of values; the returned list names the values
--- that stand for them now. Rules may look at graph.device.
function M.run(program, outputs, device)
  local set = {}
  for _, v in ipairs(outputs) do set[v] = true end
  local graph = setmetatable({
    program = program, nodes = program:live_nodes(outputs), outputs = set, substitute = {}, changed = true,
    device = device or "cpu",
  }, Graph)
  index(graph)
  while graph.changed do
    graph.changed = false
    local snapshot = graph.nodes
    for _, node in ipairs(snapshot) do
      for _, rule in ipairs(node.definition.fusions or {}) do
        if graph.position[node] then rule(graph, node) end
      end
    end
  end
  program.nodes = sorted(graph.nodes)
  local list = {}
  for k, v in ipairs(outputs) do
    while graph.substitute[v] do v = graph.substitute[v] end
    list[k] = v
  end
  return list
end

M.storage = program_module.storage
return M
