--- Shifts along dimensions; what leaves at one end comes in at the other.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local function roll_one(x, shift, dim)
  dim = op.dimension("roll", dim, x.shape)
  if type(shift) ~= "number" or shift % 1 ~= 0 then
    op.fail("roll: a shift is %s; expected a whole number", tostring(shift))
  end
  local size = x.shape[dim]
  shift = size > 0 and shift % size or 0
  if shift == 0 then return x end
  return ops.concat({ ops.narrow(x, dim, size - shift + 1, shift), ops.narrow(x, dim, 1, size - shift) }, dim)
end

--- x with its entries `shift` places further along a dimension; lists of both for several; without a dimension, rolled
--- as one row of all elements.
---@param shifts integer|integer[]
---@param dims? integer|integer[]
local function roll(x, shifts, dims)
  op.expect("roll", x)
  if dims == nil then return ops.reshape(roll_one(ops.reshape(x, { -1 }), shifts, 1), x.shape) end
  for _, given in ipairs { shifts, dims } do
    if type(given) ~= "number" and (type(given) ~= "table" or op.is_operand(given)) then
      op.fail("roll: expected x:roll(shift, dim) or lists of both, got a %s", type(given))
    end
  end
  if type(shifts) == "number" then shifts = { shifts } end
  if type(dims) == "number" then dims = { dims } end
  if #shifts ~= #dims then op.fail("roll: %d shifts and %d dimensions; one shift each", #shifts, #dims) end
  for k, dim in ipairs(dims) do x = roll_one(x, shifts[k], dim) end
  return x
end

return { roll = roll, methods = { roll = roll } }
