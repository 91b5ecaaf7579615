--- Executables: a plan handed to the runtime, with tensors bound to its slots. No Lua runs inside one.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local plan = require "perigee.core.plan"
local tensor = require "perigee.core.tensor"

local C, check, fail = core.C, core.check, core.fail

--- A captured tensor where the program runs: a constant made on another device gets a copy there.
local function on_device(t, device)
  if t.device == device or t.device == "meta" then return t end
  return tensor.outlive(t.clone, t, { device = device })
end

---@class perigee.Executable
local Executable = {}
Executable.__index = Executable

--- Plans that run one after the other as one executable, over one arena: on a device with queues they are one graph. A
--- plan may come several times, once for each piece of what it reads: its inputs and outputs named in `split` lie in
--- tensors that hold all pieces one behind the other, everything else is the same for each. The runtime records the
--- calls of every piece, in some 300 bytes each.
---@class perigee.Part
---@field plan perigee.Plan
---@field piece? integer             from 1
---@field split? table<string, boolean>

--- Is what lies in a slot another for each piece? A tensor never is, whatever its name.
local function is_split(part, slot) return slot.kind ~= "capture" and part.split and part.split[slot.name] or false end

--- The runtime's number of a value of a part, declared when it is first met.
local function declare(self, part, v)
  local slot, offset = part.plan:address(v)
  local piece = 1
  if slot >= 0 then
    if is_split(part, part.plan.slots[slot + 1]) then
      piece = part.piece
      offset = offset + (piece - 1) * plan.bytes_of(part.plan.slots[slot + 1].value)
    end
    slot = slot + self.first_slot[part.plan]
  end
  local known = self.numbers[v] or {}
  self.numbers[v] = known
  if not known[piece] then
    local number = ffi.new "int[1]"
    check(C.pg_executable_value(self.handle, slot, offset, core.dtype_code[v.dtype], #v.shape,
      tensor.int64_array(v.shape), tensor.int64_array(v.strides), number))
    known[piece] = number[0]
  end
  return known[piece]
end

--- Appends the calls of a part.
local function append(self, part)
  for _, call in ipairs(part.plan.calls) do
    local n = #call.values
    local numbers = ffi.new("int[?]", math.max(n, 1))
    for k, v in ipairs(call.values) do numbers[k - 1] = v and declare(self, part, v) or -1 end
    local definition = call.node.definition
    local ints, floats = op.attributes(definition, call.node.attributes)
    check(C.pg_executable_call(self.handle, definition.kernel_index(),
      core.dtype_code[op.instance(definition, call.node)], n, numbers, ints, floats, call.scratch_offset, call.scratch))
    self.calls[#self.calls + 1] = call
  end
end

--- The tensor that an output is written to: the one given, or a new one.
local function output_tensor(slot, count, options, device)
  local v = slot.value
  local t = options.into and options.into[slot.name]
  if not t then
    local shape = { count, unpack(v.shape) }
    if count == 1 then shape = v.shape end
    return tensor.empty(shape, v.dtype, { device = device, purpose = options.output_purpose })
  end
  if t.dtype ~= v.dtype or layout.numel(t.shape) ~= count * layout.numel(v.shape) then
    fail("output %s is %s %s%s, the tensor to hold it %s %s", slot.name, v.dtype, core.shape_text(v.shape),
      count > 1 and (", %d times"):format(count) or "", t.dtype, core.shape_text(t.shape))
  end
  return t
end

--- Binds a plan's captures and outputs and notes its inputs; `pieces`: how often it comes.
local function bind_slots(self, part, pieces, options)
  for number, slot in ipairs(part.plan.slots) do
    local place = self.first_slot[part.plan] + number - 1
    local count = is_split(part, slot) and pieces or 1
    if slot.kind == "input" then
      if self.inputs[slot.name] then fail("two programs of one executable have an input '%s'", slot.name) end
      local shape = { unpack(slot.value.shape) }
      if count > 1 then shape[1] = shape[1] * count end
      self.inputs[slot.name] = { slot = place, dtype = slot.value.dtype, shape = shape }
    elseif slot.kind == "capture" then
      local t = slot.value.tensor
      t = on_device(options.captures and options.captures[t] or t, part.plan.device)
      check(C.pg_executable_bind(self.handle, place, tensor.handle(t)))
    else
      local t = output_tensor(slot, count, options, part.plan.device)
      check(C.pg_executable_bind(self.handle, place, tensor.handle(t)))
      self.outputs[slot.name] = t
    end
  end
end

--- Builds an executable of several parts. Outputs get tensors of their own unless `options.into` names some by output
--- name; `captures` maps a captured tensor to another that takes its place (the moving average of a parameter, say).
---@param parts perigee.Part[]
---@param options? { purpose?: string, output_purpose?: string, into?: table<string, perigee.Tensor>,
---  captures?: table<perigee.Tensor, perigee.Tensor> }
---@return perigee.Executable
function Executable.sequence(parts, options)
  options = options or {}
  local first_slot, count, pieces, arena = {}, 0, {}, 0
  for _, part in ipairs(parts) do
    if not first_slot[part.plan] then
      first_slot[part.plan], count = count, count + #part.plan.slots
    end
    pieces[part.plan] = (pieces[part.plan] or 0) + 1
    arena = math.max(arena, part.plan.arena_bytes)
  end
  local the_plan = parts[1].plan
  local pointer = ffi.new "pg_executable *[1]"
  check(C.pg_executable_new(pointer, core.device_code[the_plan.device], arena, count,
    core.purpose_code[options.purpose or "arena"]))
  local self = setmetatable({
    handle = ffi.gc(pointer[0], C.pg_executable_free), plan = the_plan, calls = {}, inputs = {}, outputs = {},
    first_slot = first_slot, numbers = {},
  }, Executable)
  local bound = {}
  for _, part in ipairs(parts) do append(self, part) end
  for _, part in ipairs(parts) do
    if not bound[part.plan] then bind_slots(self, part, pieces[part.plan], options) end
    bound[part.plan] = true
  end
  self.numbers = nil
  return self
end

--- Builds an executable of one plan.
---@return perigee.Executable
function Executable.new(the_plan, options) return Executable.sequence({ { plan = the_plan } }, options) end

--- Binds tensors to inputs by name; names that the program does not read are ignored.
function Executable:bind(inputs)
  for name, t in pairs(inputs) do
    local input = self.inputs[name]
    if input then
      if t.dtype ~= input.dtype or not layout.same_shape(t.shape, input.shape) then
        fail("input %s: expected %s %s, got %s %s", name, input.dtype, core.shape_text(input.shape), t.dtype,
          core.shape_text(t.shape))
      end
      check(C.pg_executable_feed(self.handle, input.slot, tensor.handle(t)))
    end
  end
end

--- One run; returns the tensors of the outputs by name, which the next run overwrites.
function Executable:run(inputs)
  if inputs then self:bind(inputs) end
  if tensor.is_limited() then tensor.spend(self.plan:cost().flops) end
  check(C.pg_executable_run(self.handle))
  return self.outputs
end

--- One run with a clock around every call: a list of { op, seconds, flops, bytes, call }, `call` being the plan's.
function Executable:profile(inputs)
  if inputs then self:bind(inputs) end
  local n = C.pg_executable_calls(self.handle)
  local seconds = ffi.new("double[?]", math.max(n, 1))
  check(C.pg_executable_profile(self.handle, seconds))
  local rows = {}
  for k, call in ipairs(self.calls) do
    rows[k] = { op = call.node.definition.name, seconds = seconds[k - 1], flops = call.flops,
      bytes = call.bytes, call = call }
  end
  return rows
end

--- Gives the arena back now.
function Executable:free()
  if self.handle then
    ffi.gc(self.handle, nil)
    C.pg_executable_free(self.handle)
    self.handle, self.outputs = nil, {}
  end
end

--- Plans and builds in one go. `outputs` is a list of { name =, value = }.
function Executable.compile(program, outputs, options)
  return Executable.new(plan.build(program, outputs, options), options)
end

return Executable
