--- Methods that change a tensor in place: x:copy_(y), x:fill_(0), x:zero_(), and add_, mul_, clamp_, ... for ops that
--- work by element. The name ends in an underscore, the result is x. Symbolic values do not change.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local C, fail, text = core.C, core.fail, core.shape_text
local own = tensor.methods

--- Runs an op's kernel over tensors, the first of which it writes.
local function run(name, tensors, attributes)
  local definition, handles = op.defined[name], ffi.new("pg_tensor *[?]", #tensors)
  for k, t in ipairs(tensors) do handles[k - 1] = tensor.handle(t) end
  local ints, floats = op.attributes(definition, attributes)
  core.check(C.pg_kernel_run(definition.kernel_index(), core.device_code[tensors[1].device],
    core.dtype_code[op.instance(definition, { inputs = {}, outputs = tensors })], #tensors, handles, ints, floats))
end

--- The addresses of a tensor's first element and behind its last.
local function span(t)
  local first, last = tonumber(ffi.cast("intptr_t", C.pg_tensor_info(tensor.handle(t)).data)), 0
  for d, size in ipairs(t.shape) do last = last + (size - 1) * t.strides[d] end
  return first, first + (last + 1) * core.dtype_bytes[t.dtype]
end

--- Whether writing one tensor may change what is still to be read of the other.
local function share_bytes(a, b)
  local a_first, a_end = span(a)
  local b_first, b_end = span(b)
  return a.device == b.device and a_first < b_end and b_first < a_end
end

--- Fails for a tensor that is a value in the trace under way.
local function expect_changeable(name, t)
  if program.of(t) then
    fail("%s: a parameter or buffer does not change while a model or loss is traced; compute with a value made from it",
      name)
  end
end

--- Copies another tensor's contents, same shape, into this one, in its dtype and on its device.
---@param from perigee.Tensor
function own:copy_(from)
  expect_changeable("copy_", self)
  if not tensor.is_tensor(from) or program.of(from) then
    fail("copy_: expected a tensor, got a %s", op.is_operand(from) and "symbolic value" or type(from))
  end
  if not layout.same_shape(self.shape, from.shape) then
    fail("copy_: %s into %s", text(from.shape), text(self.shape))
  end
  if from.dtype ~= self.dtype then from = from:to(self.dtype) end
  local packed = layout.is_contiguous(self)
  if not (packed and self.device == "cpu") and share_bytes(self, from) then from = from:clone() end
  if packed then
    if not layout.is_contiguous(from) then from = from:contiguous() end
    core.check(C.pg_tensor_copy(tensor.handle(self), tensor.handle(from)))
  elseif layout.numel(self.shape) > 0 then
    run("copy", { self, from:to(self.device) }, {})
  end
  return self
end

--- Sets every element to one number.
---@param value number
function own:fill_(value)
  expect_changeable("fill_", self)
  if type(value) ~= "number" then fail("fill_: expected a number, got a %s", type(value)) end
  if not layout.is_contiguous(self) then
    local one = ops.fill({}, { value = value, dtype = self.dtype, device = self.device })
    return self:copy_(ops.expand(one, self.shape))
  end
  run("fill", { self }, { value = value })
  return self
end

--- Sets every element to 0.
function own:zero_() return self:fill_(0) end

--- x:NAME_(...) for an op NAME: x becomes x:NAME(...).
local function in_place(name)
  return function(self, ...)
    expect_changeable(name .. "_", self)
    local result = ops[name](self, ...)
    if program.is_value(result) then fail("%s_: x is a tensor, and what it would become a symbolic value", name) end
    if core.is_floating[result.dtype] and not core.is_floating[self.dtype] then
      fail("%s_: the result is %s, x is %s; write y = x:%s(...)", name, result.dtype, self.dtype, name)
    end
    if not layout.same_shape(result.shape, self.shape) then
      fail("%s_: the result is %s, x is %s; write y = x:%s(...)", name, text(result.shape), text(self.shape), name)
    end
    if rawequal(result, self) then return self end
    self:copy_(result)
    result:free()
    return self
  end
end

local names = {
  "add", "sub", "mul", "div", "pow", "maximum", "minimum", "neg", "abs", "exp", "log", "sqrt", "rsqrt",
  "square", "sin", "cos", "tanh", "sigmoid", "relu", "floor", "round", "sign", "reciprocal", "clamp", "masked_fill",
  "remainder", "floor_divide", "tril", "triu",
}
for _, name in ipairs(names) do own[name .. "_"] = in_place(name) end

local instead = { copy = "the other value", fill = "ops.full_like(x, value)", zero = "ops.zeros_like(x)" }
for _, name in ipairs(names) do instead[name] = ("x:%s(...)"):format(name) end
for name, other in pairs(instead) do
  program.methods[name .. "_"] = function() fail("%s_: a symbolic value does not change; write y = %s", name, other) end
end
