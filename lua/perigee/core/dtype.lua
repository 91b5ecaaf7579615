--- Dtypes by name. PyTorch's short names are aliases; a dtype that is not here is answered with the one to use.
local core = require "perigee.core.ffi"

local M = {}

local alias = {
  float = "float32", double = "float64", bf16 = "bfloat16", int = "int32", long = "int64", byte = "uint8",
}

local sixteen = 'there is no 16-bit float but "bfloat16"'
local whole = 'integers are "int32", "int64" and "uint8"'
local instead = {
  half = sixteen, float16 = sixteen, fp16 = sixteen,
  bool = 'masks are "uint8", 1 or 0; x:not_equal(0) makes one',
  short = whole, char = whole, int8 = whole, int16 = whole, uint16 = whole, uint32 = whole, uint64 = whole,
}

--- The dtype of that name; an error where there is none. nil: float32. `what` begins the message.
---@param name? string
---@param what? string
---@return perigee.Dtype
function M.named(name, what)
  if core.dtype_code[name] then return name end
  if name == nil then return "float32" end
  return alias[name] or core.fail("%sunknown dtype '%s'; %s", what and what .. ": " or "", tostring(name),
    instead[name] or "expected " .. table.concat(core.dtypes, ", ", 1, #core.dtypes - 1) .. " or "
    .. core.dtypes[#core.dtypes])
end

--- True for a name that `named` takes.
function M.is_named(name) return core.dtype_code[name] ~= nil or alias[name] ~= nil end

return M
