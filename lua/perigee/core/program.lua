--- Programs: what tracing records. A program is a list of nodes in execution order over symbolic values; nothing in it
--- has an address yet.
local core = require "perigee.core.ffi"
local dtypes = require "perigee.core.dtype"
local layout = require "perigee.core.layout"
local operand = require "perigee.core.operand"

local fail = core.fail

-- ---- values -----------------------------------------------------------------------------------------------------

---@class perigee.Value
---@field shape integer[]
---@field dtype string
---@field strides integer[]
local Value = {}
local own = {}
operand.metatable(Value)

function Value.__index(v, key)
  local method = own[key] or operand.methods[key]
  if method == nil then return operand.missing(v, key, "a symbolic value", own) end
  return method
end

Value.__newindex = operand.assign

local M = { class = Value, methods = own }

function M.is_value(v) return getmetatable(v) == Value end

local function no_number(verb)
  return function()
    fail("%s a symbolic value: inside a model or a loss the numbers are not there yet; use ops.where, ops.less, ... "
      .. "instead", verb)
  end
end
Value.__lt, Value.__le, Value.__eq = no_number "comparing", no_number "comparing", no_number "comparing"
own.item, own.totable = no_number "asking for the number in", no_number "asking for the numbers in"

function Value.__tostring(v)
  return ("symbolic %s %s %%%d"):format(v.dtype, core.shape_text(v.shape), v.id)
end

function own:to(target)
  if core.device_code[target] then fail "to: a program runs on one device; a symbolic value cannot change it" end
  target = dtypes.named(target, "to")
  if target == self.dtype then return self end
  return operand.methods.cast(self, target)
end

function own:numel() return layout.numel(self.shape) end
function own:is_contiguous() return layout.is_contiguous(self) end

--- The value whose storage a view looks into (itself, if it is no view), and the view's offset in it.
function M.storage(v)
  local offset = 0
  while v.node and v.node.definition.view do
    offset = offset + v.offset
    v = v.node.inputs[1]
  end
  return v, offset
end

-- ---- nodes ------------------------------------------------------------------------------------------------------

--- A node answers to the names of its inputs, outputs and attributes: n.x, n.epsilon.
local Node = {}
local node_methods = {}

function Node.__index(n, key)
  local method = node_methods[key]
  if method then return method end
  local definition = rawget(n, "definition")
  for k, name in ipairs(definition.inputs) do
    if name == key then return n.inputs[k] or nil end
  end
  for k, name in ipairs(definition.outputs) do
    if name == key then return n.outputs[k] end
  end
  return rawget(n, "attributes")[key]
end

--- During differentiation: is the gradient of this input wanted?
function node_methods:needs(name)
  local wanted = rawget(self, "wanted")
  if not wanted then return true end
  for k, input in ipairs(self.definition.inputs) do
    if input == name then return self.inputs[k] and wanted[self.inputs[k]] or false end
  end
  error("no input " .. name)
end

-- ---- programs ---------------------------------------------------------------------------------------------------

---@class perigee.Program
local Program = {}
Program.__index = Program
M.Program = Program

function M.new(name)
  return setmetatable({
    name = name or "program", nodes = {}, inputs = {}, captures = {}, capture_list = {}, variables = {}, next_id = 0,
    segment = nil, segments = 0, admit = nil, -- hears of a tensor that is captured
  }, Program)
end

-- ---- the trace under way ----------------------------------------------------------------------------------------

local current = false -- the program that models and losses are recorded into, or false

--- The program in which an operand is a value. A tensor is one in the trace under way if it is a parameter or buffer of
--- a module, has no storage, or is among the program's `variables`; every other tensor is a constant, and gets nil.
---@param x perigee.Tensor|perigee.Value
---@return perigee.Program?
function M.of(x)
  if M.is_value(x) then return x.program end
  return current and (rawget(x, "role") or x.device == "meta" or current.variables[x]) and current or nil
end

local NO_NUMBERS = ": inside a model or a loss the numbers of a symbolic value are not there yet; use ops.where, "
  .. "ops.less, ..."

--- Lua compares an operand with a number before anyone is asked: its error gets the reason.
local function explained(message)
  if type(message) == "string" and message:find "attempt to compare [%a ]*table"
    and not message:find(NO_NUMBERS, 1, true) then
    message = message .. NO_NUMBERS
  end
  return core.handler(message)
end

--- Runs `body` with this program as the trace under way: parameters and buffers are values in it, so an op on them
--- alone is recorded too. Whoever calls a model or a loss on symbolic values does that in here. Traces nest. Tensors
--- that `body` makes are constants of the program, and may be kept by a model: they outlive the tidy scopes around.
---@return any ...  what `body` returns
function Program:trace(body, ...)
  local outer, outlive = current, require("perigee.core.tensor").outlive
  current = self
  local results = { outlive(xpcall, body, explained, ...) }
  current = outer
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

--- The program under trace, or false, and back to it, for code that an error may end at any instruction.
function M.current() return current end
function M.restore(program) current = program end

--- An error where random numbers would be drawn while a trace is under way, instead of at every step.
function M.expect_no_draw(what)
  if current then
    fail("%s: a model or a loss is traced once, so these numbers would be the same in every step; use "
      .. "ops.random_normal(shape, { state = context.state, purpose = \"mine\" }), ops.random_uniform, ...; numbers "
      .. "that are to stay the same belong in an nn.buffer", what)
  end
end

local lua_random = math.random
function math.random(...) -- luacheck: ignore
  M.expect_no_draw "math.random"
  return lua_random(...)
end

-- ---- recording --------------------------------------------------------------------------------------------------

function Program:value(shape, dtype, strides)
  self.next_id = self.next_id + 1
  local copy = {}
  for d, size in ipairs(shape) do copy[d] = size end
  return setmetatable({
    program = self, id = self.next_id, shape = copy, strides = strides or layout.packed(copy), dtype = dtype,
    node = false, name = false, offset = 0, index = 0, tensor = false,
  }, Value)
end

--- A named input, bound at every run.
function Program:input(name, shape, dtype)
  if self.inputs[name] then fail("program %s has two inputs named '%s'", self.name, name) end
  local v = self:value(shape, dtype or "float32")
  v.name = name
  self.inputs[name] = v
  return v
end

--- The value that stands for a tensor from outside, bound once; for a strided view, a copy that is made now.
function Program:capture(t)
  local v = self.captures[t]
  if not v then
    if self.admit then self.admit(t) end
    v = self:value(t.shape, t.dtype)
    v.tensor = layout.is_contiguous(t) and t or t:contiguous()
    v.name = rawget(t, "name") or false
    self.captures[t] = v
    self.capture_list[#self.capture_list + 1] = v
  end
  return v
end

--- Makes a tensor a value of this program's traces, as parameters are: v, an input or a capture.
function Program:stands_for(v, t)
  self.captures[t] = self.captures[t] or v
  self.variables[t] = true
end

--- Traces `body` with other values in place of tensors: where it reads a tensor of the list, it gets the value.
---@param list { [1]: perigee.Tensor, [2]: perigee.Value }[]
---@return any ...  what `body` returns
function Program:trace_with(list, body, ...)
  local before = {}
  for k, pair in ipairs(list) do
    before[k] = self.captures[pair[1]] or false
    self.captures[pair[1]] = pair[2]
  end
  local results = { xpcall(self.trace, core.handler, self, body, ...) }
  for k, pair in ipairs(list) do self.captures[pair[1]] = before[k] or nil end
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

--- An operand of this program: a value itself, or what stands for a tensor.
---@param x perigee.Tensor|perigee.Value
---@return perigee.Value
function Program:operand(x) return M.is_value(x) and x or self:capture(x) end

local function new_node(self, definition, inputs, attributes)
  return setmetatable({
    definition = definition, inputs = inputs, attributes = attributes, outputs = {}, segment = self.segment or false,
    wanted = false, clone_of = false, backward = false,
  }, Node)
end

--- A node that is not in the list yet, with fresh outputs.
function Program:make_node(definition, inputs, attributes, specs)
  local node = new_node(self, definition, inputs, attributes)
  for k, spec in ipairs(specs) do
    local v = self:value(spec[1], spec[2])
    v.node, v.index = node, k
    node.outputs[k] = v
  end
  return node
end

--- Appends a call of an op and returns its outputs.
function Program:record(definition, inputs, attributes, specs)
  local node = self:make_node(definition, inputs, attributes, specs)
  self.nodes[#self.nodes + 1] = node
  return node.outputs
end

--- Appends a view of x.
function Program:record_view(definition, x, attributes, view)
  local node = new_node(self, definition, { x }, attributes)
  local v = self:value(view.shape, x.dtype, view.strides)
  v.node, v.index, v.offset = node, 1, view.offset
  node.outputs[1] = v
  self.nodes[#self.nodes + 1] = node
  return v
end

--- Records a copy of a node over other inputs (recomputation), and returns the copy.
function Program:clone_node(node, inputs)
  local copy = new_node(self, node.definition, inputs, node.attributes)
  copy.segment, copy.clone_of = false, node
  for k, old in ipairs(node.outputs) do
    local v = self:value(old.shape, old.dtype, old.strides)
    v.node, v.index, v.offset = copy, k, old.offset
    copy.outputs[k] = v
  end
  self.nodes[#self.nodes + 1] = copy
  return copy
end

--- The nodes that `body` records may be computed again in the backward pass instead of being kept (activation
--- checkpointing).
function Program:recompute(body, ...)
  local outer = self.segment
  self.segments = self.segments + 1
  self.segment = self.segments
  local results = { pcall(body, ...) }
  self.segment = outer
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

--- The nodes that the given values depend on, and those that change their inputs, in order.
function Program:live_nodes(outputs)
  local live, list = {}, {}
  local function need(v)
    if v and v.node then live[v.node] = true end
  end
  for _, v in ipairs(outputs) do need(v) end
  for k = #self.nodes, 1, -1 do
    local node = self.nodes[k]
    if node.definition.mutates then live[node] = true end
    if live[node] then
      for _, v in ipairs(node.inputs) do need(v) end
    end
  end
  for _, node in ipairs(self.nodes) do
    if live[node] then list[#list + 1] = node end
  end
  return list
end

--- The nodes of a list that read a value, by value; each once, in order.
function M.readers(nodes)
  local readers = {}
  for _, node in ipairs(nodes) do
    for _, v in ipairs(node.inputs) do
      if v then
        local list = readers[v] or {}
        readers[v] = list
        if not rawequal(list[#list], node) then list[#list + 1] = node end
      end
    end
  end
  return readers
end

--- Positions of the nodes of a list.
function M.positions(nodes)
  local position = {}
  for k, node in ipairs(nodes) do position[node] = k end
  return position
end

--- The position in a list of nodes of the last one that reads a storage, by storage.
function M.last_reads(nodes)
  local last = {}
  for k, node in ipairs(nodes) do
    for _, v in ipairs(node.inputs) do
      if v then last[M.storage(v)] = k end
    end
  end
  return last
end

return M
