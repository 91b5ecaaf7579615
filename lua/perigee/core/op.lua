--- Ops: one definition serves eager calls, tracing, differentiation, planning and tests (docs/adding-an-op.md).
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local nearest = require "perigee.base.nearest"
local operand = require "perigee.core.operand"
local tensor = require "perigee.core.tensor"
local program = require "perigee.core.program"
local tables = require "perigee.base.tables"

local C, fail = core.C, core.fail
local numel = layout.numel

local M = { fail = fail, numel = numel, shape_text = core.shape_text, same_shape = layout.same_shape, defined = {} }

--- True for a tensor or a symbolic value.
function M.is_operand(x) return tensor.is_tensor(x) or program.is_value(x) end

--- An error that names the op unless x is a tensor or a symbolic value.
function M.expect(name, x)
  if M.is_operand(x) then return end
  local as_method = x == nil and operand.methods[name] and ("; as a method it takes a colon, x:%s()"):format(name)
  fail("%s: expected a tensor, got %s%s", name, x == nil and "nil" or "a " .. type(x), as_method or "")
end

--- A dimension counted from 1, or from the end if negative, as a position; an error that names the op otherwise.
function M.dimension(name, dim, shape)
  local n = #shape
  if type(dim) ~= "number" then
    fail("%s: the dimension is %s; expected a number", name, dim == nil and "missing" or "a " .. type(dim))
  end
  local position = dim < 0 and n + 1 + dim or dim
  if position < 1 or position > n or position % 1 ~= 0 then
    fail("%s: dimension %s of a tensor %s%s", name, tostring(dim), core.shape_text(shape),
      n > 0 and ("; expected 1 to %d, or -%d to -1 from the end"):format(n, n) or "")
  end
  return position
end

--- The dtype of statistics, losses and coefficients that go with a dtype.
function M.stat(dtype) return dtype == "float64" and "float64" or "float32" end

--- An error unless all the named inputs that are present have the dtype of the first.
function M.expect_one_dtype(name, a, inputs)
  local first = inputs[1]
  for _, input in ipairs(inputs) do
    if a[input] and a[input].dtype ~= a[first].dtype then
      fail("%s: %s is %s, %s is %s; they must have one dtype", name, first, a[first].dtype, input, a[input].dtype)
    end
  end
end

--- A caller's options with `defaults` filled in (false: no default); keys that `defaults` does not have are errors.
function M.options(name, given, defaults)
  local options = {}
  for key, value in pairs(defaults) do options[key] = value end
  if given ~= nil and (type(given) ~= "table" or M.is_operand(given)) then
    fail("%s: the options are a %s; expected a table with %s", name, M.is_operand(given) and "tensor" or type(given),
      table.concat(tables.sorted_keys(defaults), ", "))
  end
  for key, value in pairs(given or {}) do
    if defaults[key] == nil then
      local names = {}
      for known in pairs(defaults) do names[#names + 1] = known end
      fail("%s: unknown option '%s'%s", name, tostring(key), nearest.hint(tostring(key), names))
    end
    options[key] = value
  end
  return options
end

--- Whether a reduction keeps its dimensions, with size 1: its options are { keep = true }, or true alone.
---@param options? boolean|{ keep?: boolean }
function M.keep(name, options)
  if type(options) == "number" then fail("%s: several dimensions go in a list: x:%s({ 1, 2 })", name, name) end
  if type(options) ~= "table" then return options or false end
  for key in pairs(options) do
    if key ~= "keep" and key ~= "mask" then
      fail("%s: unknown option '%s'%s", name, tostring(key), key == "keepdim" and '; did you mean "keep"?' or "")
    end
  end
  return options.keep or false
end

--- The set of dimensions that a reduction takes away: one, those of a list, or all where none is named.
---@param dims? integer|integer[]
---@return table<integer, true>
function M.reduced(name, x, dims)
  local set = {}
  if dims == nil then
    for d = 1, #x.shape do set[d] = true end
    return set
  elseif type(dims) == "number" then dims = { dims }
  elseif type(dims) ~= "table" then
    fail("%s: the dimensions are a %s; expected a number or a list, and then true to keep them", name, type(dims))
  end
  for _, dim in ipairs(dims) do
    local d = M.dimension(name, dim, x.shape)
    if set[d] then fail("%s: dimension %d is named twice", name, d) end
    set[d] = true
  end
  return set
end

--- Sums a gradient over the dimensions along which an operand of `shape` was broadcast.
function M.unbroadcast(gradient, shape)
  if layout.same_shape(gradient.shape, shape) then return gradient end
  local ops = require "perigee.core.ops"
  local shift, dims = #gradient.shape - #shape, {}
  for d = 1, #gradient.shape do
    if d <= shift or (shape[d - shift] == 1 and gradient.shape[d] ~= 1) then dims[#dims + 1] = d end
  end
  local summed = #dims > 0 and ops.sum(gradient, dims) or gradient
  return ops.reshape(summed, shape)
end

--- x [B,N,D], or a copy of it, with the elements of each row side by side: for kernels that take rows of any strides.
function M.rows_in_one_piece(x)
  if #x.shape == 3 and x.shape[3] ~= 1 and x.strides[3] ~= 1 then return require("perigee.core.ops").contiguous(x) end
  return x
end

-- ---- kernel calls -----------------------------------------------------------------------------------------------

local function default_instance(node)
  for _, v in ipairs(node.inputs) do
    if v and core.is_floating[v.dtype] then return v.dtype end
  end
  for _, v in ipairs(node.outputs) do
    if v and core.is_floating[v.dtype] then return v.dtype end
  end
  return "float32"
end

--- The dtype that picks a kernel's instance for a call.
function M.instance(definition, node)
  return definition.instance and definition.instance(node) or default_instance(node)
end

--- A call's attributes as C arrays.
function M.attributes(definition, attributes)
  local ints, floats = ffi.new("int64_t[?]", C.PG_MAX_ATTRIBUTES), ffi.new("double[?]", C.PG_MAX_ATTRIBUTES)
  for k, name in ipairs(definition.ints) do ints[k - 1] = attributes[name] end
  for k, name in ipairs(definition.floats) do floats[k - 1] = attributes[name] end
  return ints, floats
end

local PRODUCT = 64 -- operations on an element from which a call is as fast as a product
local SLOWER, TOUCH, DRAW = 50, 80, 800 -- operations of a product that take the time of one of another call's, of an
                                         -- element's read or write, and of a number's draw

--- What a call costs a console's evaluation, in floating-point operations of a product.
local function work_of(definition, node, attributes, specs)
  local made, touched = 0, 0
  for _, spec in ipairs(specs) do made = made + M.numel(spec[1]) end
  for _, x in pairs(node.inputs) do touched = touched + (x and M.numel(x.shape) or 0) end
  touched = touched + made
  local a = setmetatable({}, { __index = function(_, key) return node[key] or attributes[key] end })
  for k, name in ipairs(definition.outputs) do a[name] = node.outputs[k] or nil end
  local flops = definition.flops and definition.flops(a) or made
  local work = flops * (flops < PRODUCT * touched and SLOWER or 1) + TOUCH * touched
  return work + (definition.random and DRAW * made or 0)
end

local function run_now(definition, inputs, attributes, specs)
  if definition.random then program.expect_no_draw(definition.name) end
  local n_outputs, n_inputs = #specs, #definition.inputs
  local device = "cpu"
  for k = 1, n_inputs do
    if inputs[k] then device = inputs[k].device break end
  end
  if device == "meta" then
    fail("%s: a parameter among its inputs has no storage yet; in a model use it in `forward`, elsewhere call "
      .. "model:materialise() first", definition.name)
  end
  if attributes.device then device = attributes.device end
  local outputs = {}
  for k, spec in ipairs(specs) do -- nobody reads what is saved for a backward pass
    local unread = k > definition.results and definition.optional_outputs[definition.outputs[k]]
    outputs[k] = not unread and tensor.empty(spec[1], spec[2], { device = device })
  end
  local handles = ffi.new("pg_tensor *[?]", n_outputs + n_inputs)
  for k = 1, n_outputs do
    if outputs[k] then handles[k - 1] = tensor.handle(outputs[k]) end
  end
  for k = 1, n_inputs do
    if inputs[k] then handles[n_outputs + k - 1] = tensor.handle(inputs[k]) end
  end
  local node = { inputs = inputs, outputs = outputs }
  for k, name in ipairs(definition.inputs) do node[name] = inputs[k] or nil end
  if tensor.is_limited() then tensor.spend(work_of(definition, node, attributes, specs)) end
  local ints, floats = M.attributes(definition, attributes)
  core.check(C.pg_kernel_run(definition.kernel_index(), core.device_code[device],
    core.dtype_code[M.instance(definition, node)], n_outputs + n_inputs, handles, ints, floats))
  return outputs
end

-- ---- definitions ------------------------------------------------------------------------------------------------

local Definition = {}
Definition.__index = Definition

local known_keys = {
  name = true, kernel = true, inputs = true, outputs = true, results = true, ints = true, floats = true, options = true,
  defaults = true, shape = true, vjp = true, flops = true, plain = true, strided = true, instance = true,
  inplace = true, part = true, rate_share = true, multiplies_bfloat16 = true, cuts_gradient = true,
  fusions = true, random = true, mutates = true, optional_outputs = true, view = true, bytes = true, piece = true,
  recompute = true, column_sums = true,
}

--- Defines an op; the keys are documented in docs/adding-an-op.md.
function M.define(definition)
  local name = definition.name or error("an op needs a name", 2)
  for key in pairs(definition) do
    if not known_keys[key] then error(("op %s: unknown key '%s'"):format(name, tostring(key)), 2) end
  end
  if M.defined[name] then error(("op %s is defined twice"):format(name), 2) end
  definition.optional = {}
  for k, input in ipairs(definition.inputs) do
    local bare = input:match "^(.*)%?$"
    if bare then
      definition.inputs[k] = bare
      definition.optional[bare] = true
    end
  end
  definition.outputs = definition.outputs or { "y" }
  definition.results = definition.results or 1
  definition.ints = definition.ints or {}
  definition.floats = definition.floats or {}
  definition.options = definition.options or {} -- attributes that no kernel reads
  definition.defaults = definition.defaults or {}
  definition.inplace = definition.inplace or {}
  definition.optional_outputs = definition.optional_outputs or {}
  definition.attribute = {}
  for _, list in ipairs { definition.ints, definition.floats, definition.options } do
    for _, key in ipairs(list) do definition.attribute[key] = true end
  end
  local kernel
  function definition.kernel_index()
    if not kernel then
      kernel = C.pg_kernel_find(definition.kernel or name)
      if kernel < 0 then fail("%s: the library has no kernel '%s'; rebuild it", name, definition.kernel or name) end
    end
    return kernel
  end
  M.defined[name] = definition
  return setmetatable(definition, Definition)
end

local function accepts_strides(definition, input)
  local strided = definition.strided
  return strided == true or (type(strided) == "table" and strided[input])
end

local contiguous -- ops.contiguous, found when first needed: ops are defined with this file

--- Checks a call's arguments. Returns the program that records the call: that of the values among the inputs or, where
--- there are none, the one in which a parameter among them is a value; nil where the call runs at once.
local function check_inputs(definition, inputs, attributes)
  local symbolic, of_parameters
  for k, name in ipairs(definition.inputs) do
    local x = inputs[k]
    if x == nil or x == false then
      if not definition.optional[name] then fail("%s: %s is missing", definition.name, name) end
      inputs[k] = false
    elseif program.is_value(x) then
      if symbolic and not rawequal(symbolic, x.program) then
        fail("%s: its inputs belong to two different programs", definition.name)
      end
      symbolic = x.program
    elseif tensor.is_tensor(x) then
      of_parameters = of_parameters or program.of(x)
    else
      fail("%s: %s is a %s, not a tensor", definition.name, name, type(x))
    end
  end
  for key in pairs(attributes) do
    if not definition.attribute[key] then fail("%s: unknown option '%s'", definition.name, tostring(key)) end
  end
  for key in pairs(definition.attribute) do
    if attributes[key] == nil and definition.defaults[key] == nil then
      fail("%s: option '%s' is missing", definition.name, key)
    end
  end
  return symbolic or of_parameters
end

function Definition.__call(definition, ...)
  local n = #definition.inputs
  local inputs = {}
  for k = 1, n do inputs[k] = (select(k, ...)) end
  local given = select(n + 1, ...) or {}
  local symbolic = check_inputs(definition, inputs, given)
  local attributes = {}
  for key in pairs(definition.attribute) do
    local value = given[key]
    if value == nil then value = definition.defaults[key] end
    if value == true then value = 1 elseif value == false then value = 0 end
    attributes[key] = value
  end

  if symbolic then -- tensors among the inputs become the program's captures
    for k = 1, n do inputs[k] = inputs[k] and symbolic:operand(inputs[k]) end
  end
  for k, name in ipairs(definition.inputs) do
    if inputs[k] and not accepts_strides(definition, name) and not layout.is_contiguous(inputs[k]) then
      contiguous = contiguous or require("perigee.core.ops").contiguous
      inputs[k] = contiguous(inputs[k])
    end
  end

  local a = {}
  for key, value in pairs(attributes) do a[key] = value end
  for k, name in ipairs(definition.inputs) do a[name] = inputs[k] or nil end
  local specs = definition.shape(a)
  local outputs
  if symbolic then outputs = symbolic:record(definition, inputs, attributes, specs)
  else outputs = run_now(definition, inputs, attributes, specs) end
  return unpack(outputs, 1, definition.results)
end

--- Defines a view op: no kernel, only another layout of the same storage. `layout(from, attributes)` returns the new
--- layout (core/layout.lua), or nil where a copy is needed first.
function M.define_view(definition)
  local make, check = definition.layout, definition.check
  definition.layout, definition.check = nil, nil
  definition.view, definition.strided = true, true
  definition.inputs, definition.outputs = { "x" }, { "y" }
  definition.shape = function() return {} end
  local defined = M.define(definition)
  return function(x, attributes)
    M.expect(definition.name, x)
    attributes = attributes or {}
    if check then check(x, attributes) end
    local from = { shape = x.shape, strides = x.strides, offset = 0 }
    local view = make(from, attributes)
    if not view then
      x = require("perigee.core.ops").contiguous(x)
      view = make({ shape = x.shape, strides = x.strides, offset = 0 }, attributes)
    end
    local symbolic = program.of(x)
    if symbolic then return symbolic:record_view(defined, symbolic:operand(x), attributes, view) end
    return tensor.view(x, view)
  end
end

return M
