--- Tensors: a shape, a dtype and a view of storage that the runtime counts references of.
---
--- Freed by :free(), by the end of a `tidy` scope, or by the collector. LuaJIT's collector does not see native bytes,
--- so a ledger of them asks for a collection now and then. A tensor without storage ("meta") has a shape and dtype
--- only: parameters are that until their model is materialised, so a model can be planned without memory.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local dtypes = require "perigee.core.dtype"
local layout = require "perigee.core.layout"
local operand = require "perigee.core.operand"
local print_text = require("perigee.core.print").text
local program = require "perigee.core.program"

local C, check = core.C, core.check

---@class perigee.Tensor
---@field shape integer[]
---@field dtype string
---@field device string
---@field strides integer[]
local Tensor = {}
local methods = operand.methods
local own = {} -- methods of tensors only
operand.metatable(Tensor)

function Tensor.__index(t, key)
  local method = own[key] or methods[key]
  if method == nil then return operand.missing(t, key, "a tensor", own) end
  return method
end

Tensor.__newindex = operand.assign

local function no_comparison(sign, by_element)
  return function()
    core.fail("two tensors and %s: that is one boolean in Lua; write x:%s(y) to compare by element, x:item() for a "
      .. "number%s", sign, by_element, sign == "==" and ", x:allclose(y), or rawequal(x, y) for one tensor" or "")
  end
end
Tensor.__lt, Tensor.__le = no_comparison("<", "less"), no_comparison("<=", "less_equal")
Tensor.__eq = no_comparison("==", "equal")

local M = { class = Tensor, methods = own }

function M.is_tensor(t) return getmetatable(t) == Tensor end

-- ---- the ledger -------------------------------------------------------------------------------------------------

local ledger, ledger_limit = 0, 256 * 2 ^ 20
local scopes = {} -- open tidy scopes, innermost last

local limit -- of a console's evaluation, while one is under way

--- Limits the bytes of tensors and the work of ops from now on; nil: no limit. `held` gets the tensors that are made,
--- as weak keys, each with what stands for its storage.
---@param given? { bytes: number, work: number, held?: table<perigee.Tensor, { bytes: number }> }
function M.allow(given) limit = given end

--- Takes floating-point operations off the limit, before they are done.
---@param flops number
function M.spend(flops)
  limit.work = limit.work - flops
  if limit.work < 0 then core.fail "the evaluation was ended: its ops do more work than a line in a console may" end
end

--- Is a limit in force?
function M.is_limited() return limit ~= nil end

--- The bytes of the storage that the tensors in such a table hold together.
function M.bytes_in(held)
  local sum, seen = 0, {}
  for t, storage in pairs(held) do
    if rawget(t, "handle") and not seen[storage] then sum = sum + storage.bytes end
    seen[storage] = true
  end
  return sum
end

local function account(bytes)
  if limit then
    if bytes > limit.bytes then
      core.fail("a tensor of %.1f MiB: more than a console may still make", bytes / 2 ^ 20)
    end
    limit.bytes = limit.bytes - bytes
  end
  ledger = ledger + bytes
  if ledger > ledger_limit then
    ledger = 0
    collectgarbage()
    collectgarbage()
  end
end

local function wrap(handle, shape, strides, dtype, device)
  local t = setmetatable({
    handle = ffi.gc(handle, C.pg_tensor_release), shape = shape, strides = strides, dtype = dtype, device = device,
  }, Tensor)
  local scope = scopes[#scopes]
  if scope then scope[#scope + 1] = t end
  return t
end

-- LuaJIT 2.1.0-beta3 loses a finalizer now and then where this is compiled into one trace with what handles handles;
-- interpreted it costs half a microsecond (tests/lua/memory_spec.lua counts the bytes).
jit.off(wrap)

local function int64_array(list)
  local array = ffi.new("int64_t[?]", math.max(#list, 1))
  for k, v in ipairs(list) do array[k - 1] = v end
  return array
end
M.int64_array = int64_array

local function checked_shape(shape)
  if type(shape) ~= "table" then core.fail("a shape is a list of sizes, not a %s", type(shape)) end
  local copy = {}
  for d, size in ipairs(shape) do
    if type(size) ~= "number" or size < 0 or size % 1 ~= 0 then
      core.fail("dimension %d of a shape is %s; sizes are whole numbers", d, tostring(size))
    end
    copy[d] = size
  end
  return copy
end

local pointer = ffi.new "pg_tensor *[1]"

--- New storage with undefined contents.
---@param options? { device?: string, purpose?: string }
---@return perigee.Tensor
function M.empty(shape, dtype, options)
  shape, dtype = checked_shape(shape), dtypes.named(dtype)
  local device = options and options.device or "cpu"
  local purpose = core.purpose_code[options and options.purpose or "other"]
  local device_code = core.device_code[device]
  if not device_code then core.fail("unknown device '%s'; expected %s", tostring(device), core.devices_text) end
  account(layout.numel(shape) * core.dtype_bytes[dtype])
  local status = C.pg_tensor_new(pointer, device_code, purpose, core.dtype_code[dtype], #shape, int64_array(shape))
  if status == C.PG_ERROR_MEMORY then -- garbage may hold what is missing
    collectgarbage()
    collectgarbage()
    status = C.pg_tensor_new(pointer, device_code, purpose, core.dtype_code[dtype], #shape, int64_array(shape))
  end
  check(status)
  local made = wrap(pointer[0], shape, layout.packed(shape), dtype, device)
  if limit and limit.held then limit.held[made] = { bytes = layout.numel(shape) * core.dtype_bytes[dtype] } end
  return made
end

--- A tensor without storage.
function M.meta(shape, dtype)
  shape = checked_shape(shape)
  return setmetatable({ shape = shape, strides = layout.packed(shape), dtype = dtypes.named(dtype),
    device = "meta" }, Tensor)
end

--- The tensor's handle; an error for a tensor without storage, and for one that is a value in the trace under way: what
--- became of its numbers would stay as it is now.
function M.handle(t)
  local handle = rawget(t, "handle")
  if program.of(t) then
    core.fail("this parameter or buffer %s is symbolic while a model or a loss is traced: its numbers are not there; "
      .. "compute with ops", core.shape_text(t.shape))
  elseif not handle then
    core.fail(rawget(t, "freed") and "this tensor %s was freed"
      or "this tensor %s has no storage yet; in a model use it in `forward`, elsewhere call model:materialise() first",
      core.shape_text(t.shape))
  end
  return handle
end

--- Another view of t's storage; `offset` counts from t's first element.
function M.view(t, view)
  check(C.pg_tensor_view(pointer, M.handle(t), view.offset, core.dtype_code[view.dtype or t.dtype], #view.shape,
    int64_array(view.shape), int64_array(view.strides)))
  local made = wrap(pointer[0], view.shape, view.strides, view.dtype or t.dtype, t.device)
  if limit and limit.held then limit.held[made] = limit.held[t] end
  return made
end

--- Gives a meta tensor the storage of another of the same shape.
function M.materialise(t, from)
  if not layout.same_shape(t.shape, from.shape) then
    core.fail("materialise: %s into %s", core.shape_text(from.shape), core.shape_text(t.shape))
  end
  C.pg_tensor_retain(M.handle(from))
  pointer[0] = M.handle(from)
  rawset(t, "handle", ffi.gc(pointer[0], C.pg_tensor_release)) -- another pointer object: a finalizer belongs to one
  t.dtype, t.device, t.strides = from.dtype, from.device, from.strides
end

jit.off(M.materialise) -- as wrap above

--- Takes a tensor's storage away again: it is meta until it is materialised again.
function M.dematerialise(t)
  local handle = rawget(t, "handle")
  if handle then
    ffi.gc(handle, nil)
    C.pg_tensor_release(handle)
    rawset(t, "handle", nil)
    t.device = "meta"
  end
end

-- ---- numbers in and out -----------------------------------------------------------------------------------------

local function bfloat16_bits(x)
  local f = ffi.new("float[1]", x)
  local bits = ffi.cast("uint32_t *", f)[0]
  if x ~= x then return 0x7fc0 end
  local low = bits % 65536
  local high = math.floor(tonumber(bits) / 65536)
  if low > 32768 or (low == 32768 and high % 2 == 1) then high = high + 1 end
  return high
end

local function bfloat16_value(bits)
  local u = ffi.new("uint32_t[1]", bits * 65536)
  return tonumber(ffi.cast("float *", u)[0])
end

local function flatten(values, shape, depth, out)
  if depth > #shape then
    if type(values) ~= "number" then core.fail("tensor: expected a number, got a %s", type(values)) end
    out[#out + 1] = values
    return
  end
  if type(values) ~= "table" or #values ~= shape[depth] then
    core.fail("tensor: dimension %d has %s entries in one place and %d in another", depth,
      type(values) == "table" and #values or "no", shape[depth])
  end
  for k = 1, shape[depth] do flatten(values[k], shape, depth + 1, out) end
end

--- A tensor of given numbers: a nested table (its shape is found), a number, or a cdata array with a shape.
---@return perigee.Tensor
function M.tensor(values, shape, dtype)
  if type(shape) == "string" then shape, dtype = nil, shape end
  dtype = dtypes.named(dtype)
  if type(values) == "cdata" then
    if not shape then core.fail "tensor: a cdata array needs a shape" end
    local t = M.empty(shape, dtype)
    check(C.pg_tensor_write(M.handle(t), values, layout.numel(t.shape) * core.dtype_bytes[dtype]))
    return t
  end
  local list = {}
  if type(values) == "number" then
    list, shape = { values }, shape or {}
  elseif type(values) == "table" then
    local found, probe = {}, values
    while type(probe) == "table" do
      if M.is_tensor(probe) then
        core.fail(#found == 0 and "tensor: it is a tensor already; x:clone() copies it"
          or "tensor: the table holds tensors; ops.stack joins them")
      end
      found[#found + 1] = #probe
      probe = probe[1]
    end
    flatten(values, found, 1, list)
    shape = shape or found
  else
    core.fail("tensor: expected numbers, got a %s", type(values))
  end
  if layout.numel(shape) ~= #list then
    core.fail("tensor: %d numbers do not fill the shape %s", #list, core.shape_text(shape))
  end
  local array = ffi.new(core.ctype[dtype] .. "[?]", math.max(#list, 1))
  for k, v in ipairs(list) do array[k - 1] = dtype == "bfloat16" and bfloat16_bits(v) or v end
  local t = M.empty(shape, dtype)
  check(C.pg_tensor_write(M.handle(t), array, #list * core.dtype_bytes[dtype]))
  return t
end

--- A host array (cdata) of a tensor's elements in row-major order, and their number. It is a copy.
function M.to_host(t)
  if not layout.is_contiguous(t) then t = t:contiguous() end
  local n = layout.numel(t.shape)
  local array = ffi.new(core.ctype[t.dtype] .. "[?]", math.max(n, 1))
  check(C.pg_tensor_read(M.handle(t), array, n * core.dtype_bytes[t.dtype]))
  return array, n
end

--- A function from a position (from 0) in a host array to the number there. Every NaN becomes LuaJIT's own: it would
--- take the bits of some others, which a file may hold, for values of other types.
local function number_reader(array, dtype)
  if dtype == "bfloat16" then
    return function(k)
      local bits = array[k]
      return bits % 0x8000 > 0x7f80 and 0 / 0 or bfloat16_value(bits)
    end
  elseif dtype == "float32" then
    local words = ffi.cast("uint32_t *", array)
    return function(k) return words[k] % 0x80000000 > 0x7f800000 and 0 / 0 or array[k] end
  elseif dtype == "float64" then
    local words = ffi.cast("uint32_t *", array) -- low word first
    return function(k)
      local high = words[2 * k + 1] % 0x80000000
      return (high > 0x7ff00000 or (high == 0x7ff00000 and words[2 * k] > 0)) and 0 / 0 or array[k]
    end
  end
  return function(k) return tonumber(array[k]) end
end

M.number_reader = number_reader

--- The one number in a tensor of one element.
function own:item()
  local array, n = M.to_host(self)
  if n ~= 1 then core.fail("item: the tensor %s has %d elements, not one", core.shape_text(self.shape), n) end
  return number_reader(array, self.dtype)(0)
end

--- A nested Lua table of the tensor's numbers (a number for a tensor without dimensions).
function own:totable()
  local array = M.to_host(self)
  local read, position, shape = number_reader(array, self.dtype), 0, self.shape
  local function build(depth)
    if depth > #shape then
      position = position + 1
      return read(position - 1)
    end
    local list = {}
    for k = 1, shape[depth] do list[k] = build(depth + 1) end
    return list
  end
  return build(1)
end

--- Pointer to a contiguous CPU tensor's elements, typed; valid while the tensor lives.
function own:pointer()
  local info = C.pg_tensor_info(M.handle(self))
  if self.device ~= "cpu" or not layout.is_contiguous(self) then
    core.fail "pointer: only a contiguous tensor on the CPU has one"
  end
  return ffi.cast(core.ctype[self.dtype] .. " *", info.data)
end

function own:clone(options)
  M.handle(self) -- there is something to copy
  local copy = M.empty(self.shape, self.dtype, { device = options and options.device or self.device,
    purpose = options and options.purpose })
  return copy:copy_(self)
end

--- In another dtype, or on another device.
---@param target string
function own:to(target)
  if type(target) ~= "string" then core.fail("to: expected a dtype or a device, got a %s", type(target)) end
  if core.device_code[target] then
    if target == self.device then return self end
    return self:clone { device = target }
  end
  target = dtypes.named(target, "to")
  if target == self.dtype then return self end
  return methods.cast(self, target)
end

--- Gives the storage back now. Views of it keep it alive.
function own:free()
  M.dematerialise(self)
  rawset(self, "freed", true)
end

function own:numel() return layout.numel(self.shape) end
function own:is_contiguous() return layout.is_contiguous(self) end
function own:bytes() return layout.numel(self.shape) * core.dtype_bytes[self.dtype] end

--- Runs a function and frees every tensor made in it except those it returns (also inside returned tables).
function M.tidy(body, ...)
  local scope = {}
  scopes[#scopes + 1] = scope
  local results = { pcall(body, ...) }
  scopes[#scopes] = nil
  local keep, outer = {}, scopes[#scopes]
  local function mark(x, depth)
    if M.is_tensor(x) then keep[x] = true
    elseif type(x) == "table" and depth < 4 then
      for _, y in pairs(x) do mark(y, depth + 1) end
    end
  end
  if results[1] then
    for k = 2, #results do mark(results[k], 1) end
  end
  for _, t in ipairs(scope) do
    if not keep[t] then t:free()
    elseif outer then outer[#outer + 1] = t end
  end
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

--- The open scopes, and back to the first `count` of a list of them, for code that an error may end at any instruction.
function M.scopes() return scopes end
function M.restore_scopes(list, count)
  scopes = list
  for k = count + 1, #list do list[k] = nil end
end

--- Runs a function whose tensors outlive the tidy scopes around it: those of caches, data sets, loaders.
function M.outlive(body, ...)
  local open = scopes
  scopes = {}
  local results = { pcall(body, ...) }
  scopes = open
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, table.maxn(results))
end

function Tensor.__tostring(t)
  local head = ("%s %s on %s"):format(t.dtype, core.shape_text(t.shape), t.device)
  if not rawget(t, "handle") or program.of(t) then return head end
  local array = M.to_host(t)
  return print_text(head, t.shape, array, number_reader(array, t.dtype), core.is_floating[t.dtype])
end

return M
