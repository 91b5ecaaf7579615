--- Runs the cases of tests/ops (docs/adding-an-op.md) and says what is wrong with them. A case is checked
---
---   against its reference, computed in float64 from the same rounded inputs, per output and dtype;
---   compiled as a program, fused, against the same reference;
---   with strided views as inputs, bit for bit;
---   with 1, 2 and 3 threads, bit for bit, forward and gradients;
---   on tests/cuda_on_cpu in every order of a block's threads, bit for bit;
---   with outputs full of NaN before the call, guards on both sides of every output, inputs that must stay the same;
---   by finite differences in float64, along a random direction and three coordinates, and its gradients in other
---   dtypes against those in float64.
local ffi = require "ffi"
local core = require "perigee.core"
local door = require "perigee.core.ffi"

local tensor, ops = core.tensor, core.ops
local C = door.C

ffi.cdef "void cuda_on_cpu_set_order(int order, uint64_t seed);"

local M = {}

local DEFAULT = { float64 = 1e-11, float32 = 1e-5, bfloat16 = 1e-2 }
local GUARD = 64 -- elements on both sides of a tensor
local GUARD_BYTE = 0xA5
-- What stands in outputs before the call.
local POISON = {
  float32 = { "uint32_t", 0x7fc00000 }, float64 = { "uint64_t", 0x7ff8000000000000ULL },
  bfloat16 = { "uint16_t", 0x7fc0 }, int32 = { "int32_t", -123456789 }, int64 = { "int64_t", -123456789 },
  uint8 = { "uint8_t", 0xAA },
}

-- ---- random inputs ----------------------------------------------------------------------------------------------

--- A generator of its own for every case: Park and Miller's, seeded by a name.
local function generator(name)
  local state = 1
  for k = 1, #name do state = (state * 31 + name:byte(k)) % 2147483647 end
  if state == 0 then state = 1 end
  local function uniform()
    state = state * 16807 % 2147483647
    return state / 2147483647
  end
  for _ = 1, 8 do uniform() end
  return uniform
end

local function normal(uniform) return math.sqrt(-2 * math.log(uniform())) * math.cos(2 * math.pi * uniform()) end

local function numel(shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return n
end

local function flatten(values, list)
  if type(values) == "table" then
    for _, v in ipairs(values) do flatten(v, list) end
  else list[#list + 1] = values end
  return list
end

--- The numbers of an input: its `values`, or random ones: normal, uniform in `range`, whole in `int`.
local function numbers_of(spec, uniform)
  if spec.values then return flatten(spec.values, {}) end
  local list = {}
  for k = 1, numel(spec.shape) do
    if spec.int then list[k] = spec.int[1] + math.floor(uniform() * (spec.int[2] - spec.int[1] + 1))
    elseif spec.range then list[k] = spec.range[1] + uniform() * (spec.range[2] - spec.range[1])
    else list[k] = normal(uniform) end
  end
  return list
end

local ctype = { float32 = "float", float64 = "double", int32 = "int32_t", int64 = "int64_t", uint8 = "uint8_t" }

local function tensor_of(numbers, shape, dtype)
  if dtype == "bfloat16" then return tensor_of(numbers, shape, "float32"):to(dtype) end
  local array = ffi.new(ctype[dtype] .. "[?]", math.max(#numbers, 1))
  for k, v in ipairs(numbers) do array[k - 1] = v end
  return tensor.tensor(array, shape, dtype)
end

local function shape_of(values)
  local shape = {}
  while type(values) == "table" do
    shape[#shape + 1] = #values
    values = values[1]
  end
  return shape
end

--- A case's inputs in a dtype; an input with a dtype of its own keeps it.
local function inputs_of(case, dtype)
  local uniform, list = generator(case.name), {}
  for k, spec in ipairs(case.inputs or {}) do
    for key in pairs(spec) do
      if not ({ shape = 1, values = 1, range = 1, int = 1, dtype = 1 })[key] then
        error(("case %s: input %d: unknown key '%s'"):format(case.name, k, key), 0)
      end
    end
    local shape = spec.shape or shape_of(spec.values)
    list[k] = tensor_of(numbers_of(spec, uniform), shape, spec.dtype or dtype)
  end
  return list
end

-- ---- bytes ------------------------------------------------------------------------------------------------------

local function bytes_of(t)
  local array, n = tensor.to_host(t)
  return ffi.string(array, n * door.dtype_bytes[t.dtype])
end

--- A host array with a poisoned middle of n elements between guards.
local function guarded_bytes(n, dtype)
  local size, poison = door.dtype_bytes[dtype], POISON[dtype]
  local array = ffi.new("uint8_t[?]", (n + 2 * GUARD) * size)
  ffi.fill(array, (n + 2 * GUARD) * size, GUARD_BYTE)
  local element = ffi.cast(poison[1] .. " *", array + GUARD * size)
  for k = 0, n - 1 do element[k] = poison[2] end
  return array, (n + 2 * GUARD) * size
end

--- Runs body() with every tensor that it makes poisoned and between guards, on any device; returns its results and a
--- function that says which guard was overwritten, if any.
local function guarded(body)
  local plain, made = tensor.empty, {}
  tensor.empty = function(shape, dtype, options)
    dtype = dtype or "float32"
    local n, size = numel(shape), door.dtype_bytes[dtype]
    local base = plain({ n + 2 * GUARD }, dtype, options)
    door.check(C.pg_tensor_write(tensor.handle(base), guarded_bytes(n, dtype)))
    C.pg_tensor_retain(tensor.handle(base)) -- looked at after the body has freed it
    made[#made + 1] = { handle = ffi.gc(tensor.handle(base), C.pg_tensor_release), shape = shape, n = n, size = size }
    local strides, stride = {}, 1
    for d = #shape, 1, -1 do strides[d], stride = stride, stride * shape[d] end
    return tensor.view(base, { shape = shape, strides = strides, offset = GUARD })
  end
  local results = { pcall(body) }
  tensor.empty = plain
  if not results[1] then error(results[2], 0) end
  local function overwritten()
    for _, t in ipairs(made) do
      local bytes = (t.n + 2 * GUARD) * t.size
      local data = ffi.new("uint8_t[?]", bytes)
      door.check(C.pg_tensor_read(t.handle, data, bytes))
      for side = 0, 1 do
        local start = side * (GUARD + t.n) * t.size
        for k = start, start + GUARD * t.size - 1 do
          if data[k] ~= GUARD_BYTE then
            return ("a tensor %s was written %s its %s"):format(door.shape_text(t.shape),
              side == 0 and "before" or "after", side == 0 and "start" or "end")
          end
        end
      end
    end
  end
  return { unpack(results, 2, table.maxn(results)) }, overwritten
end

-- ---- comparison -------------------------------------------------------------------------------------------------

local function as_numbers(x)
  if tensor.is_tensor(x) then return flatten({ x:totable() }, {}), x.shape end
  if type(x) == "table" then return flatten(x, {}), shape_of(x) end
  return { x }, {}
end

local function mean_magnitude(list)
  local sum, n = 0, 0
  for _, v in ipairs(list) do
    if v == v and math.abs(v) < math.huge then sum, n = sum + math.abs(v), n + 1 end
  end
  return n > 0 and sum / n or 0
end

--- nil, or what differs: |got - expected| may be tolerance·(|expected| + mean |expected|).
local function difference(got, expected, tolerance)
  local a, b = as_numbers(got), as_numbers(expected)
  local narrow = got.dtype == "float32" or got.dtype == "bfloat16"
  if #a ~= #b then return ("%d elements, expected %d"):format(#a, #b) end
  local scale = mean_magnitude(b)
  local worst, where = 0, nil
  for k = 1, #b do
    local x, y = a[k], b[k]
    if narrow and math.abs(y) > 3.4e38 then y = y > 0 and math.huge or -math.huge end
    local both_nan, equal = x ~= x and y ~= y, x == y
    if not (both_nan or equal) then
      local excess = math.abs(x - y) / (tolerance * (math.abs(y) + scale))
      if excess ~= excess or tolerance == 0 then excess = math.huge end
      if excess > worst then worst, where = excess, k end
    end
  end
  if worst > 1 then
    return ("element %d of %d is %.9g, expected %.9g: off by %.3g times the tolerance %g"):format(where, #b, a[where],
      b[where], worst, tolerance)
  end
end

local function check_alike(case, what, got, expected)
  for k, bytes in ipairs(expected) do
    if bytes_of(got[k]) ~= bytes then
      error(("%s: result %d %s"):format(case.name, k, what), 0)
    end
  end
end

local function all_bytes(list)
  local bytes = {}
  for k, t in ipairs(list) do bytes[k] = bytes_of(t) end
  return bytes
end

-- ---- running ----------------------------------------------------------------------------------------------------

local function tolerance_of(case, dtype, key)
  local given = case[key or "tolerance"]
  if type(given) == "number" then return given end
  return given and given[dtype] or DEFAULT[dtype] or 0
end

local function with_threads(n, body)
  local before = C.pg_threads()
  door.check(C.pg_threads_set(n))
  local results = { pcall(body) }
  C.pg_threads_set(before)
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

local ORDERS = { "ascending", "descending", "random" } -- by their numbers; 0 is warp by warp
local SEED = 7

--- tests/cuda_on_cpu, where that stands for a device.
local function fibres_of(device)
  local path = os.getenv "PERIGEE_CUDA_LIBRARY" or ""
  return device == "cuda" and path:match "libperigee_cuda_on_cpu%.so$" and ffi.load(path) or nil
end

--- body()'s results have the expected bytes in every order of a block's threads. They are read before the order changes
--- back, since what was queued runs only when somebody waits for it.
local function check_orders(case, what, device, body, expected)
  local fibres = fibres_of(device)
  for order = 1, fibres and #ORDERS or 0 do
    fibres.cuda_on_cpu_set_order(order, SEED)
    local fine, message = pcall(function()
      check_alike(case, ("%s with threads in %s order"):format(what, ORDERS[order]), body(), expected)
    end)
    fibres.cuda_on_cpu_set_order(0, 0)
    if not fine then error(message, 0) end
  end
end

local function run(case, inputs) return { case.run(ops, unpack(inputs, 1, #inputs)) } end

--- x in other memory of a device: its last two dimensions (or a gap between elements, if it has one) stored the other
--- way round. x is on the CPU.
local function strided(x, device)
  local n = #x.shape
  if n == 0 then return x:to(device) end
  if n == 1 then return ops.select(ops.stack({ x, x }, 2):to(device), 2, 2) end
  local turned = ops.contiguous(ops.transpose(ops.concat({ x, x }, 1), 1, -1))
  return ops.narrow(ops.transpose(turned:to(device), 1, -1), 1, x.shape[1] + 1, x.shape[1])
end

--- The oracle: `reference` over float64 tensors, `elementwise` over numbers with broadcasting, or the op's `plain`.
local function expected_of(case, inputs)
  local wide = {}
  for k, x in ipairs(inputs) do wide[k] = door.is_floating[x.dtype] and x:to "float64" or x end
  if case.reference then return { case.reference(ops, unpack(wide, 1, #wide)) } end
  if case.elementwise then
    local layout = require "perigee.core.layout"
    local shape = {}
    for _, x in ipairs(wide) do shape = layout.broadcast(shape, x.shape) end
    local lists, result = {}, {}
    for k, x in ipairs(wide) do lists[k] = as_numbers(ops.expand(x, shape)) end
    for k = 1, numel(shape) do
      local at = {}
      for j, list in ipairs(lists) do at[j] = list[k] end
      local value = case.elementwise(unpack(at, 1, #lists))
      if type(value) == "boolean" then value = value and 1 or 0 end
      result[k] = value
    end
    return { result }
  end
  error(("case %s needs a `reference`, an `elementwise` or an `op` with a plain composition"):format(case.name), 0)
end

--- With `op`, the program of the op itself and of its plain composition are compared: `plain` sees one node.
local function plain_of(case, inputs)
  local definition = require("perigee.core.op").defined[case.op]
  local results = {}
  local wide, names = {}, {}
  for k, x in ipairs(inputs) do
    wide[k], names[k] = door.is_floating[x.dtype] and x:to "float64" or x, "input " .. k
  end
  local p = core.program.new "plain"
  local values = {}
  for k, x in ipairs(wide) do values[k] = p:input(names[k], x.shape, x.dtype) end
  case.run(ops, unpack(values, 1, #values))
  local found
  for _, node in ipairs(p.nodes) do
    if node.definition == definition then found = node end
  end
  if not found then error(("case %s does not call the op %s"):format(case.name, case.op), 0) end
  local outputs = { definition.plain(found) }
  for k, v in ipairs(outputs) do results[k] = { name = "output " .. k, value = v } end
  local bound = {}
  for k, x in ipairs(wide) do bound[names[k]] = x end
  local out, list = core.executable.compile(p, results, { fuse = false }):run(bound), {}
  for k in ipairs(outputs) do list[k] = out["output " .. k]:clone() end
  return list
end

local function expected(case, inputs)
  if case.op then return plain_of(case, inputs) end
  return expected_of(case, inputs)
end

local function compare(case, dtype, what, results, references)
  if #results ~= #references then
    error(("%s: %d results, the reference has %d"):format(case.name, #results, #references), 0)
  end
  for k, y in ipairs(results) do
    local tolerance = door.is_floating[y.dtype] and tolerance_of(case, dtype) or 0
    local message = difference(y, references[k], tolerance)
    if message then error(("%s, %s%s: result %d: %s"):format(case.name, dtype, what, k, message), 0) end
    local _, shape = as_numbers(references[k])
    if tensor.is_tensor(references[k]) and door.shape_text(shape) ~= door.shape_text(y.shape) then
      error(("%s: result %d is %s, expected %s"):format(case.name, k, door.shape_text(y.shape),
        door.shape_text(shape)), 0)
    end
  end
end

--- Forward: values, guards, inputs left alone, threads (elsewhere than on the CPU: twice the same, and in every order
--- of a block's threads), strides, compiled (there three times: call by call, captured, replayed).
function M.forward(case, dtype, device)
  local inputs = inputs_of(case, dtype)
  local references = expected(case, inputs)
  local here = {}
  for k, x in ipairs(inputs) do here[k] = x:to(device) end
  local before = all_bytes(here)
  local function once() return run(case, here) end
  local results, overwritten = guarded(function() return unpack(with_threads(1, once)) end)
  local message = overwritten()
  if message then error(("%s, %s: %s"):format(case.name, dtype, message), 0) end
  for k, x in ipairs(here) do
    if bytes_of(x) ~= before[k] then error(("%s: input %d was changed"):format(case.name, k), 0) end
  end
  compare(case, dtype, "", results, references)
  local bytes = all_bytes(results)
  for threads = 2, device == "cpu" and 3 or 2 do
    check_alike(case, device == "cpu" and "differs with more threads" or "differs the next time",
      with_threads(threads, once), bytes)
  end
  check_orders(case, "differs", device, once, bytes)
  if case.strided ~= false then
    local views = {}
    for k, x in ipairs(inputs) do views[k] = strided(x, device) end
    check_alike(case, "differs for strided inputs", with_threads(1, function() return run(case, views) end), bytes)
  end
  if case.compiled ~= false and #here > 0 then
    local compiled, executable = core.compile(function(...) return case.run(ops, ...) end, here, { device = device })
    local program_results = { compiled(unpack(here, 1, #here)) }
    compare(case, dtype, ", compiled", program_results, references)
    local first = all_bytes(program_results)
    for _ = 2, device == "cpu" and 1 or 3 do
      check_alike(case, "of the program differs the next time", { compiled(unpack(here, 1, #here)) }, first)
    end
    executable:free()
  end
end

-- ---- gradients --------------------------------------------------------------------------------------------------

local function list_dot(a, b)
  local sum = 0
  for k, v in ipairs(a) do sum = sum + v * b[k] end
  return sum
end

--- Weights that make one number of the real results: what a dtype holds exactly.
local function weights_of(case, results, dtype)
  local uniform, weights = generator(case.name .. " weights"), {}
  for k, y in ipairs(results) do
    if door.is_floating[y.dtype] then
      local list = {}
      for i = 1, numel(y.shape) do list[i] = normal(uniform) end
      weights[k] = as_numbers(tensor_of(list, { #list }, dtype))
    end
  end
  return weights
end

--- Gradients of that number with respect to the inputs that the case names, by one compiled program on a device.
local function gradients_in(case, dtype, weights, device)
  local p, values, bound = core.program.new "gradients", {}, {}
  for k, x in ipairs(inputs_of(case, dtype)) do
    bound["input " .. k] = x:to(device or "cpu")
    values[k] = p:input("input " .. k, x.shape, x.dtype)
  end
  local loss
  local wide = (device or "cpu") == "cpu" and "float64" or "float32" -- what the number is summed in
  for k, y in ipairs(run(case, values)) do
    if weights[k] then
      local part = (y * tensor_of(weights[k], y.shape, y.dtype)):to(wide):sum()
      loss = loss and loss + part or part
    end
  end
  local wrt, outputs, gradients = {}, {}, {}
  for k, position in ipairs(case.gradients) do wrt[k] = values[position] end
  for k, g in ipairs(core.gradient(p, { loss }, { ops.full_like(loss, 1) }, wrt)) do
    if not g then error(("%s: no gradient flows to input %d"):format(case.name, case.gradients[k]), 0) end
    outputs[k] = { name = "gradient " .. k, value = g }
  end
  local executable = core.executable.compile(p, outputs, { device = device })
  local out = executable:run(bound)
  for k, output in ipairs(outputs) do gradients[k] = out[output.name]:clone() end
  executable:free()
  return gradients
end

--- The weighted sum of the results at inputs[position] + step·direction.
local function value_at(case, inputs, weights, position, direction, step)
  local moved, list = { unpack(inputs, 1, #inputs) }, as_numbers(inputs[position])
  for k, v in ipairs(list) do list[k] = v + step * direction[k] end
  moved[position] = tensor_of(list, inputs[position].shape, "float64")
  local sum = 0
  for k, y in ipairs(run(case, moved)) do
    if weights[k] then sum = sum + list_dot(as_numbers(y), weights[k]) end
  end
  return sum
end

local function check_direction(case, inputs, weights, position, gradient, direction, what)
  local step = case.step or 1e-5
  local numeric = (value_at(case, inputs, weights, position, direction, step)
    - value_at(case, inputs, weights, position, direction, -step)) / (2 * step)
  local analytic = list_dot(gradient, direction)
  local scale = math.sqrt(list_dot(gradient, gradient) / #gradient) * math.sqrt(list_dot(direction, direction))
  local allowed = (case.difference_tolerance or 1e-6) * (math.abs(numeric) + scale + 1e-3)
  if math.abs(numeric - analytic) > allowed or numeric ~= numeric or analytic ~= analytic then
    error(("%s: gradient of input %d, %s: %.12g, by finite differences %.12g"):format(case.name, position, what,
      analytic, numeric), 0)
  end
end

--- Finite differences in float64.
function M.differences(case)
  local inputs = inputs_of(case, "float64")
  local weights = weights_of(case, run(case, inputs), "float64")
  local gradients = gradients_in(case, "float64", weights)
  for k, position in ipairs(case.gradients) do
    local gradient = as_numbers(gradients[k])
    local uniform, n = generator(case.name .. " direction" .. k), #gradient
    local direction = {}
    for i = 1, n do direction[i] = normal(uniform) / math.sqrt(n) end
    check_direction(case, inputs, weights, position, gradient, direction, "a random direction")
    for _ = 1, 3 do
      local place, unit = math.floor(uniform() * n) + 1, {}
      for i = 1, n do unit[i] = i == place and 1 or 0 end
      check_direction(case, inputs, weights, position, gradient, unit, "coordinate " .. place)
    end
  end
end

--- Gradients in another dtype against those in float64 on the CPU from the same rounded inputs; guards and threads.
function M.gradients(case, dtype, device)
  local weights = weights_of(case, run(case, inputs_of(case, "float64")), dtype)
  local wide_inputs = {}
  for k, x in ipairs(inputs_of(case, dtype)) do
    local fixed = not door.is_floating[x.dtype] and x.dtype or nil
    wide_inputs[k] = { values = as_numbers(x), shape = x.shape, dtype = fixed }
  end
  local wide_case = setmetatable({ inputs = wide_inputs }, { __index = case })
  local exact = gradients_in(wide_case, "float64", weights)
  local results, overwritten = guarded(function()
    return unpack(with_threads(1, function() return gradients_in(case, dtype, weights, device) end))
  end)
  local message = overwritten()
  if message then error(("%s, %s, gradients: %s"):format(case.name, dtype, message), 0) end
  local tolerance = case.gradient_tolerance and tolerance_of(case, dtype, "gradient_tolerance")
    or 4 * tolerance_of(case, dtype)
  for k, position in ipairs(case.gradients) do
    local text = difference(results[k], exact[k], tolerance)
    if text then error(("%s, %s: gradient of input %d: %s"):format(case.name, dtype, position, text), 0) end
  end
  local bytes = all_bytes(results)
  local function again() return gradients_in(case, dtype, weights, device) end
  check_alike(case, "of the gradients differs with more threads", with_threads(2, again), bytes)
  check_orders(case, "of the gradients differs", device, again, bytes)
end

--- The kernel that a device lacks, if that is what an error says.
function M.missing_kernel(message) return tostring(message):match "([%w_]+) is not available on %w+ in" end

--- A case that must fail: the message holds `error` as plain text.
function M.fails(case)
  local fine, message = pcall(function() return run(case, inputs_of(case, "float32")) end)
  if fine then error(("%s: no error, expected one with '%s'"):format(case.name, case.error), 0) end
  if not tostring(message):find(case.error, 1, true) then
    error(("%s: the error is '%s', expected '%s' in it"):format(case.name, tostring(message), case.error), 0)
  end
end

local known = {}
for _, key in ipairs {
  "name", "run", "inputs", "reference", "elementwise", "op", "gradients", "tolerance", "gradient_tolerance", "dtypes",
  "error", "strided", "compiled", "step", "difference_tolerance", "check",
} do known[key] = true end

--- A case's mistakes, before anything runs.
function M.validate(case)
  for key in pairs(case) do
    if not known[key] then error(("case %s: unknown key '%s'"):format(tostring(case.name), tostring(key)), 0) end
  end
  if type(case.name) ~= "string" or not (type(case.run) == "function" or case.check) then
    error("a case needs a name and a run function", 0)
  end
end

return M
