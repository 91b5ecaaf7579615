--- Elements as files hold them, by the names that safetensors gives: how many bytes they have, and what they become
--- here. float16 and float8 become float32, short and unsigned integers the next larger ones.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local tensor = require "perigee.core.tensor"
require "perigee.core.ops" -- copy_

local M = {}

-- ---- small floats -------------------------------------------------------------------------------------------------

local NAN = 0 / 0

--- All values of a small float by its bits. `special`: "ieee" (the largest exponent is infinity and NaN), "finite"
--- (all ones is NaN alone), "no_zero" (what would be −0 is NaN, and nothing else is).
local function values_of(exponent_bits, fraction_bits, bias, special)
  local half, fractions, last = 2 ^ (exponent_bits + fraction_bits), 2 ^ fraction_bits, 2 ^ exponent_bits - 1
  local values = ffi.new("float[?]", 2 * half)
  for bits = 0, half - 1 do
    local exponent, fraction = math.floor(bits / fractions), bits % fractions
    local value = (exponent == 0 and fraction or fractions + fraction)
      * 2 ^ (math.max(exponent, 1) - bias - fraction_bits)
    if special == "ieee" and exponent == last then value = fraction == 0 and math.huge or NAN end
    if special == "finite" and bits == half - 1 then value = NAN end
    values[bits], values[bits + half] = value, -value
  end
  if special == "no_zero" then values[half] = NAN end
  return values
end

--- A conversion to float32 by a table, which is made when it is first needed.
local function by_table(ctype, ...)
  local description, values = { ... }, nil
  return function(raw, out, count)
    values = values or values_of(unpack(description))
    local bits = ffi.cast(ctype, raw)
    for k = 0, count - 1 do out[k] = values[bits[k]] end
  end
end

local function power_of_two(raw, out, count) -- an exponent alone
  local bits = ffi.cast("const uint8_t *", raw)
  for k = 0, count - 1 do out[k] = bits[k] == 255 and NAN or 2 ^ (bits[k] - 127) end
end

--- A conversion of integers to larger ones.
local function as(ctype)
  return function(raw, out, count)
    local numbers = ffi.cast(ctype, raw)
    for k = 0, count - 1 do out[k] = numbers[k] end
  end
end

--- Unsigned 64-bit integers, which must fit into signed ones.
local function unsigned(raw, out, count)
  local numbers = ffi.cast("const int64_t *", raw)
  for k = 0, count - 1 do
    if numbers[k] < 0 then return "a number of 2^63 or more" end
    out[k] = numbers[k]
  end
end

-- ---- the formats --------------------------------------------------------------------------------------------------

---@class perigee.ElementFormat
---@field bytes integer
---@field dtype? string  the dtype here; nil: it can't be read
---@field convert? fun(raw: ffi.cdata*, out: ffi.cdata*, count: integer): string?  returns what is wrong with a value

---@type table<string, perigee.ElementFormat>
M.formats = {
  F64 = { bytes = 8, dtype = "float64" }, F32 = { bytes = 4, dtype = "float32" },
  BF16 = { bytes = 2, dtype = "bfloat16" },
  I64 = { bytes = 8, dtype = "int64" }, I32 = { bytes = 4, dtype = "int32" }, U8 = { bytes = 1, dtype = "uint8" },
  BOOL = { bytes = 1, dtype = "uint8" },
  F16 = { bytes = 2, dtype = "float32", convert = by_table("const uint16_t *", 5, 10, 15, "ieee") },
  F8_E5M2 = { bytes = 1, dtype = "float32", convert = by_table("const uint8_t *", 5, 2, 15, "ieee") },
  F8_E4M3 = { bytes = 1, dtype = "float32", convert = by_table("const uint8_t *", 4, 3, 7, "finite") },
  F8_E5M2FNUZ = { bytes = 1, dtype = "float32", convert = by_table("const uint8_t *", 5, 2, 16, "no_zero") },
  F8_E4M3FNUZ = { bytes = 1, dtype = "float32", convert = by_table("const uint8_t *", 4, 3, 8, "no_zero") },
  F8_E8M0 = { bytes = 1, dtype = "float32", convert = power_of_two },
  I16 = { bytes = 2, dtype = "int32", convert = as "const int16_t *" },
  I8 = { bytes = 1, dtype = "int32", convert = as "const int8_t *" },
  U16 = { bytes = 2, dtype = "int32", convert = as "const uint16_t *" },
  U32 = { bytes = 4, dtype = "int64", convert = as "const uint32_t *" },
  U64 = { bytes = 8, dtype = "int64", convert = unsigned },
  C64 = { bytes = 8 },
}

--- Reads elements of a format at an offset into a contiguous tensor of the format's dtype, on any device. Returns what
--- is wrong with a value, or nil, and with `summed` the CRC-32 of the bytes.
local function read(path, offset, format, into, summed)
  if not format.convert then
    local _, sum = files.read_tensor(path, offset, into, summed)
    return nil, sum
  end
  return tensor.tidy(function()
    local count = layout.numel(into.shape)
    local raw, sum = files.read_tensor(path, offset, tensor.empty({ count * format.bytes }, "uint8"), summed)
    local to = into.device == "cpu" and into or tensor.empty(into.shape, into.dtype)
    local wrong = format.convert(raw:pointer(), to:pointer(), count)
    if not rawequal(to, into) then into:copy_(to) end
    return wrong, sum
  end)
end

--- Reads a file's tensor: `entry` says its dtype here, what it is stored as, its shape and its offset, and `strides`
--- and `span` (elements from the first to the last) where it isn't contiguous. Into a given contiguous tensor of its
--- shape and dtype, or a new one. With `summed`, the second result is the CRC-32 of the bytes.
---@param file { path: string }
---@return perigee.Tensor, integer?
function M.read_entry(file, name, entry, into, summed)
  local format = M.formats[entry.stored]
  if not format.dtype then
    core.fail("%s: tensor '%s' is %s, which can't be read", file.path, name, entry.stored)
  end
  into = into or tensor.empty(entry.shape, entry.dtype)
  if into.dtype ~= entry.dtype or not layout.same_shape(into.shape, entry.shape) then
    core.fail("%s: tensor '%s' is %s %s, the one to read into is %s %s", file.path, name, entry.dtype,
      core.shape_text(entry.shape), into.dtype, core.shape_text(into.shape))
  end
  local wrong, sum
  if not entry.strides then wrong, sum = read(file.path, entry.offset, format, into, summed)
  else
    tensor.tidy(function()
      local all = tensor.empty({ entry.span }, entry.dtype)
      wrong, sum = read(file.path, entry.offset, format, all, summed)
      into:copy_(tensor.view(all, { offset = 0, shape = entry.shape, strides = entry.strides }))
    end)
  end
  if wrong then core.fail("%s: tensor '%s' holds %s", file.path, name, wrong) end
  return into, sum
end

return M
