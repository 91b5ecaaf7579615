--- The core: tensors, ops, and the way from a traced program to an executable.
local door = require "perigee.core.ffi"
local executable = require "perigee.core.executable"
local grad = require "perigee.core.grad"
local ops = require "perigee.core.ops"
local plan = require "perigee.core.plan"
local program = require "perigee.core.program"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {
  ops = ops, tensor = tensor, program = program, plan = plan, executable = executable, gradient = grad.gradient,
}

--- Where the first of some tensors lies: there the program runs that reads them.
local function device_of(tensors)
  local device = tensors[1] and tensors[1].device
  return device ~= "meta" and device or nil
end

--- Fails unless a caller gave a function and a list of tensors.
local function expect_call(name, body, inputs)
  if type(body) ~= "function" then door.fail("%s: expected a function, got a %s", name, type(body)) end
  if type(inputs) ~= "table" or tensor.is_tensor(inputs) then
    door.fail("%s: the function's inputs are a %s; expected a list of tensors, pg.%s(f, { x })", name,
      tensor.is_tensor(inputs) and "tensor" or type(inputs), name)
  end
  for k, t in ipairs(inputs) do
    if not tensor.is_tensor(t) then door.fail("%s: input %d is a %s, not a tensor", name, k, type(t)) end
  end
end

--- Fails unless the tensors have gradients.
local function expect_real(list)
  for _, t in ipairs(list) do
    if not door.is_floating[t.dtype] then
      door.fail("grad: a gradient with respect to a tensor %s of %s; only real numbers have one: x:to \"float32\"",
        door.shape_text(t.shape), t.dtype)
    end
  end
end

--- Traces a function over symbolic values shaped like the given tensors, and returns a function that runs the compiled
--- program on tensors, where the first one lies unless `options.device` says otherwise. The traced function returns one
--- value or several.
function M.compile(body, examples, options)
  expect_call("compile", body, examples)
  local p = program.new "compiled"
  local values, names = {}, {}
  for k, t in ipairs(examples) do
    names[k] = "input " .. k
    values[k] = p:input(names[k], t.shape, t.dtype)
  end
  local results = { p:trace(body, unpack(values, 1, #examples)) }
  local outputs = {}
  for k, v in ipairs(results) do
    outputs[k] = { name = "output " .. k, value = p:operand(v) }
  end
  local exe = executable.compile(p, outputs, tables.merged({ device = device_of(examples) }, options))
  return function(...)
    local bound = {}
    for k, name in ipairs(names) do bound[name] = (select(k, ...)) end
    local out = exe:run(bound)
    local list = {}
    for k, output in ipairs(outputs) do list[k] = out[output.name]:clone() end
    return unpack(list)
  end, exe
end

--- Gradients of a function that returns one number, with respect to its inputs (a list of tensors) and, if asked, to
--- other tensors it reads (`options.also`, a list). Returns the gradients in a list, and the function's value.
function M.grad(body, inputs, options)
  expect_call("grad", body, inputs)
  local p = program.new "gradient"
  local values, bound = {}, {}
  local also = options and options.also or {}
  expect_real(inputs)
  expect_real(also)
  for k, t in ipairs(inputs) do
    values[k] = p:input("input " .. k, t.shape, t.dtype)
    bound["input " .. k] = t
  end
  for k, t in ipairs(inputs) do p:stands_for(values[k], t) end
  for _, t in ipairs(also) do p:stands_for(p:capture(t), t) end
  local loss = p:trace(body, unpack(values, 1, #inputs))
  if not program.is_value(loss) then error("grad: the function's result does not depend on its inputs", 2) end
  if loss:numel() ~= 1 then error("grad: the function returns " .. tostring(loss) .. ", not one number", 2) end
  local wrt = {}
  for k, v in ipairs(values) do wrt[k] = v end
  for _, t in ipairs(also) do wrt[#wrt + 1] = p:capture(t) end
  local seed = ops.full_like(loss, 1)
  local gradients = grad.gradient(p, { loss }, { seed }, wrt)
  local outputs = { { name = "loss", value = loss } }
  for k, g in ipairs(gradients) do
    if g then outputs[#outputs + 1] = { name = "gradient " .. k, value = tensor.is_tensor(g) and p:capture(g) or g } end
  end
  local device = device_of(inputs)
  local exe = executable.compile(p, outputs, { device = device, fuse = options and options.fuse })
  local out = exe:run(bound)
  local result = {}
  for k, v in ipairs(wrt) do
    result[k] = out["gradient " .. k] or ops.fill(v.shape, { value = 0, dtype = v.dtype, device = device })
  end
  local value = out.loss
  exe:free()
  return result, value
end

return M
