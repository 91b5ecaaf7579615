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

local function declare(handle, the_plan, v, cache)
  local known = cache[v]
  if known then return known end
  local slot, offset = the_plan:address(v)
  local number = ffi.new "int[1]"
  check(C.pg_executable_value(handle, slot, offset, core.dtype_code[v.dtype], #v.shape, tensor.int64_array(v.shape),
    tensor.int64_array(v.strides), number))
  cache[v] = number[0]
  return number[0]
end

--- Builds an executable. Outputs get tensors of their own unless `options.into` names some by output name; `captures` maps
--- a captured tensor to another that takes its place (the moving average of a parameter, say).
---@param options? { purpose?: string, into?: table<string, perigee.Tensor>, captures?: table<perigee.Tensor, perigee.Tensor> }
---@return perigee.Executable
function Executable.new(the_plan, options)
  options = options or {}
  local pointer = ffi.new "pg_executable *[1]"
  local device = core.device_code[the_plan.device]
  check(C.pg_executable_new(pointer, device, the_plan.arena_bytes, #the_plan.slots,
    core.purpose_code[options.purpose or "arena"]))
  local handle = ffi.gc(pointer[0], C.pg_executable_free)
  local cache = {}
  for _, call in ipairs(the_plan.calls) do
    local n = #call.values
    local numbers = ffi.new("int[?]", math.max(n, 1))
    for k, v in ipairs(call.values) do numbers[k - 1] = v and declare(handle, the_plan, v, cache) or -1 end
    local definition = call.node.definition
    local ints, floats = op.attributes(definition, call.node.attributes)
    check(C.pg_executable_call(handle, definition.kernel_index(), core.dtype_code[op.instance(definition, call.node)], n,
      numbers, ints, floats, call.scratch_offset, call.scratch))
  end
  local self = setmetatable({ handle = handle, plan = the_plan, inputs = {}, outputs = {}, shapes = {} }, Executable)
  for number, slot in ipairs(the_plan.slots) do
    if slot.kind == "input" then
      self.inputs[slot.name], self.shapes[slot.name] = number - 1, slot.value
    elseif slot.kind == "capture" then
      local t = slot.value.tensor
      t = on_device(options.captures and options.captures[t] or t, the_plan.device)
      check(C.pg_executable_bind(handle, number - 1, tensor.handle(t)))
    else
      local given = options.into and options.into[slot.name]
      local t = given or tensor.empty(slot.value.shape, slot.value.dtype, { device = the_plan.device, purpose = options.output_purpose })
      if t.dtype ~= slot.value.dtype or layout.numel(t.shape) ~= layout.numel(slot.value.shape) then
        fail("output %s is %s %s, the tensor to hold it %s %s", slot.name, slot.value.dtype,
          core.shape_text(slot.value.shape), t.dtype, core.shape_text(t.shape))
      end
      check(C.pg_executable_bind(handle, number - 1, tensor.handle(t)))
      self.outputs[slot.name] = t
    end
  end
  return self
end

--- Binds tensors to inputs by name; names that the program does not read are ignored.
function Executable:bind(inputs)
  for name, t in pairs(inputs) do
    local slot = self.inputs[name]
    if slot then
      local v = self.shapes[name]
      if t.dtype ~= v.dtype or not layout.same_shape(t.shape, v.shape) then
        fail("input %s: expected %s %s, got %s %s", name, v.dtype, core.shape_text(v.shape), t.dtype, core.shape_text(t.shape))
      end
      check(C.pg_executable_feed(self.handle, slot, tensor.handle(t)))
    end
  end
end

--- One run; returns the tensors of the outputs by name, which the next run overwrites.
function Executable:run(inputs)
  if inputs then self:bind(inputs) end
  check(C.pg_executable_run(self.handle))
  return self.outputs
end

--- One run with a clock around every call: a list of { op, seconds, flops, bytes, node }.
function Executable:profile(inputs)
  if inputs then self:bind(inputs) end
  local n = C.pg_executable_calls(self.handle)
  local seconds = ffi.new("double[?]", math.max(n, 1))
  check(C.pg_executable_profile(self.handle, seconds))
  local rows = {}
  for k, call in ipairs(self.plan.calls) do
    rows[k] = { op = call.node.definition.name, seconds = seconds[k - 1], flops = call.flops, bytes = call.bytes, node = call.node }
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
