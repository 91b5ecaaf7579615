--- Plans: a program with every decision made that does not need data: dead code gone, ops fused, kernels chosen, every
--- intermediate at an offset in one arena, every call's FLOPs and bytes counted.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local fuse = require "perigee.core.fuse"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local program_module = require "perigee.core.program"
local rematerialise = require "perigee.core.rematerialise"
local tables = require "perigee.base.tables"

local C, check = core.C, core.check
local storage = program_module.storage

local M = {}

local ALIGNMENT = 64
local function aligned(bytes) return math.ceil(bytes / ALIGNMENT) * ALIGNMENT end
local function bytes_of(v) return layout.numel(v.shape) * core.dtype_bytes[v.dtype] end
M.bytes_of = bytes_of

--- A pg_view of a value without data.
local function fill_view(view, v)
  view.data, view.dtype, view.ndim = nil, core.dtype_code[v.dtype], #v.shape
  for d = 1, #v.shape do
    view.shape[d - 1], view.stride[d - 1] = v.shape[d], v.strides[d]
  end
end

--- Every output needs storage of its own, made by a kernel: others (views, inputs, the same value twice) are copied.
local function own_storage(outputs)
  local claimed, values = {}, {}
  local ops = require "perigee.core.ops"
  for k, output in ipairs(outputs) do
    local v = output.value
    local base = storage(v)
    local whole = layout.is_contiguous(v) and bytes_of(v) == bytes_of(base)
    if not base.node or claimed[base] or not whole then
      v = ops.copy(v)
      base = v
    end
    claimed[base] = true
    values[k] = v
  end
  return values
end

--- Maker and last reader of every storage, by position in the list of calls.
local function lifetimes(nodes, outputs_of)
  local first, last = {}, program_module.last_reads(nodes)
  for k, node in ipairs(nodes) do
    if not node.definition.view then
      for _, v in ipairs(node.outputs) do
        first[v], last[v] = k, math.max(last[v] or k, k)
      end
    end
  end
  for _, v in ipairs(outputs_of) do last[storage(v)] = #nodes + 1 end
  return first, last
end

--- Lets outputs take over the memory of inputs that nobody reads afterwards, where the op allows it.
local function share_in_place(nodes, first, last, in_slot)
  local shares = {}
  for k, node in ipairs(nodes) do
    for output, input in pairs(node.definition.inplace) do
      local y, x = node[output], node[input]
      if y and x and program_module.is_value(x) then
        local base = storage(x)
        if base.node and not in_slot[base] and not in_slot[y] and last[base] == k and bytes_of(base) == bytes_of(y)
          and layout.is_contiguous(x) and x.dtype == y.dtype and first[y] == k then
          local alone = true -- no other argument of this call may look into the same storage
          for _, v in ipairs(node.inputs) do
            if v and not rawequal(v, x) and rawequal(storage(v), base) then alone = false end
          end
          if alone then shares[y] = base end
        end
      end
    end
  end
  return shares
end

--- Offsets by size, largest first, each at the lowest place that is free for its whole life.
local function place(blocks)
  table.sort(blocks, function(a, b)
    if a.bytes ~= b.bytes then return a.bytes > b.bytes end
    return a.first < b.first
  end)
  local placed, top = {}, 0
  for _, block in ipairs(blocks) do
    local conflicts = {}
    for _, other in ipairs(placed) do
      if other.first <= block.last and block.first <= other.last then conflicts[#conflicts + 1] = other end
    end
    table.sort(conflicts, function(a, b) return a.offset < b.offset end)
    local offset = 0
    for _, other in ipairs(conflicts) do
      if offset + block.bytes <= other.offset then break end
      offset = math.max(offset, other.offset + other.bytes)
    end
    block.offset = offset
    placed[#placed + 1] = block
    top = math.max(top, offset + block.bytes)
  end
  return top
end

local function scratch_bytes(node, values, device)
  local n = #values
  local views, present = ffi.new("pg_view[?]", math.max(n, 1)), ffi.new("uint8_t[?]", math.max(n, 1))
  for k, v in ipairs(values) do
    present[k - 1] = v and 1 or 0
    if v then fill_view(views[k - 1], v) end
  end
  local ints, floats = op.attributes(node.definition, node.attributes)
  local out = ffi.new "int64_t[1]"
  check(C.pg_kernel_plan(node.definition.kernel_index(), core.device_code[device],
    core.dtype_code[op.instance(node.definition, node)], n, views, present, ints, floats, out))
  return tonumber(out[0])
end

local function priced(node, values)
  local a = setmetatable({}, { __index = node })
  local flops = node.definition.flops and node.definition.flops(a)
    or (node.outputs[1] and layout.numel(node.outputs[1].shape) or 0)
  local bytes = 0
  if node.definition.bytes then bytes = node.definition.bytes(a)
  else
    for _, v in ipairs(values) do
      if v then bytes = bytes + bytes_of(v) end
    end
  end
  return flops, bytes
end

--- The memory that a run reads and writes: inputs and captures that some node reads, and the outputs. Returns the
--- slots, and their numbers by storage.
local function slots_of(program, nodes, outputs, values)
  local slots, slot_of, read = {}, {}, {}
  local function add(kind, name, v)
    slots[#slots + 1] = { kind = kind, name = name, value = v }
    slot_of[storage(v)] = #slots
  end
  for _, node in ipairs(nodes) do
    for _, v in ipairs(node.inputs) do
      if v then read[storage(v)] = true end
    end
  end
  for _, name in ipairs(tables.sorted_keys(program.inputs)) do
    if read[program.inputs[name]] then add("input", name, program.inputs[name]) end
  end
  for _, v in ipairs(program.capture_list) do
    if read[v] then add("capture", v.name or "tensor", v) end
  end
  for k, output in ipairs(outputs) do add("output", output.name, values[k]) end
  return slots, slot_of
end

--- The call of a node's kernel: its arguments are the outputs, then the inputs. An output that the kernel may leave out
--- is false where `is_read` says that nobody reads it.
local function call_of(node, position, is_read, device)
  local definition, arguments = node.definition, {}
  for i, v in ipairs(node.outputs) do
    local optional = definition.optional_outputs[definition.outputs[i]]
    arguments[i] = (not optional or is_read(v)) and v
  end
  for i = 1, #definition.inputs do arguments[#node.outputs + i] = node.inputs[i] end
  local flops, bytes = priced(node, arguments)
  return { node = node, values = arguments, position = position, scratch = scratch_bytes(node, arguments, device),
           scratch_offset = 0, flops = flops, bytes = bytes }
end

--- Lays out the arena: every output that is no slot gets a block, or its place in the block of the value whose memory
--- it takes over, and so does every call's scratch. Returns the blocks by value and the arena's bytes.
local function arrange(calls, first, last, shares, slot_of)
  local blocks, block_of, scratch_of = {}, {}, {}
  local function add(bytes, from, to)
    local block = { bytes = aligned(bytes), first = from, last = to }
    blocks[#blocks + 1] = block
    return block
  end
  for _, call in ipairs(calls) do
    for i, v in ipairs(call.node.outputs) do
      if call.values[i] and not slot_of[v] then
        block_of[v] = block_of[shares[v]] or add(bytes_of(v), first[v], last[v])
        block_of[v].last = math.max(block_of[v].last, last[v])
      end
    end
    if call.scratch > 0 then scratch_of[call] = add(call.scratch, call.position, call.position) end
  end
  local arena_bytes = place(blocks)
  for call, block in pairs(scratch_of) do call.scratch_offset = block.offset end
  return block_of, arena_bytes
end

---@class perigee.Plan
---@field program perigee.Program
---@field calls table[]      { node, values, position, scratch, scratch_offset, flops, bytes }
---@field slots table[]      { kind = "input"|"capture"|"output", name, value }
---@field arena_bytes integer

--- Plans a program. `outputs` is a list of { name =, value = }.
---@param options? { device?: string, fuse?: boolean, recompute?: boolean }  recompute (true): cheap values
---  of the forward pass are computed again for the backward one instead of being kept (core/rematerialise.lua)
---@return perigee.Plan
function M.build(program, outputs, options)
  options = options or {}
  local device = options.device or "cpu"
  local values = own_storage(outputs)
  if options.fuse ~= false then
    values = fuse.run(program, values, device)
    if options.recompute ~= false then rematerialise.run(program, values) end
  else
    program.nodes = program:live_nodes(values)
  end
  local nodes = program:live_nodes(values)
  local slots, slot_of = slots_of(program, nodes, outputs, values)
  local first, last = lifetimes(nodes, values)
  local calls = {}
  for k, node in ipairs(nodes) do
    if not node.definition.view then
      calls[#calls + 1] = call_of(node, k, function(v) return slot_of[v] or last[v] > k end, device)
    end
  end
  local shares = share_in_place(nodes, first, last, slot_of)
  local block_of, arena_bytes = arrange(calls, first, last, shares, slot_of)
  return setmetatable({
    program = program, device = device, nodes = nodes, calls = calls, slots = slots, slot_of = slot_of,
    block_of = block_of, arena_bytes = arena_bytes, outputs = values,
  }, M)
end

M.__index = M

--- FLOPs and bytes of one run.
function M:cost()
  local flops, bytes = 0, 0
  for _, call in ipairs(self.calls) do
    flops, bytes = flops + call.flops, bytes + call.bytes
  end
  return { flops = flops, bytes = bytes, calls = #self.calls, arena_bytes = self.arena_bytes }
end

--- Where a value lies: its slot (counted from 0) or -1, and the byte offset there.
function M:address(v)
  local base, offset = storage(v)
  local size = core.dtype_bytes[v.dtype]
  local slot = self.slot_of[base]
  if slot then return slot - 1, offset * size end
  return -1, self.block_of[base].offset + offset * size
end

return M
