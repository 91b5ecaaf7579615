--- Lists of whole numbers that a caller writes as one table or as several numbers: reshape { 4, 3 }, reshape(4, 3).
local core = require "perigee.core.ffi"

--- The list, in a table of its own; an error that names the op otherwise. Eight numbers at most, as many as a tensor
--- has dimensions: in a function with `...`, LuaJIT would compile less of what calls it.
---@param name string
---@param first integer|integer[]
---@return integer[]
return function(name, first, b, c, d, e, f, g, h)
  local given, list = first, {}
  if type(first) == "number" then given = { first, b, c, d, e, f, g, h }
  elseif type(first) ~= "table" or rawget(first, "dtype") then
    core.fail("%s: expected whole numbers, as in %s(4, 3) or %s { 4, 3 }, got %s", name, name, name,
      first == nil and "none" or "a " .. (type(first) == "table" and "tensor" or type(first)))
  elseif b ~= nil then core.fail("%s: a list and further arguments; give { 4, 3 } or 4, 3", name) end
  for k = 1, #given do
    local size = given[k]
    if type(size) ~= "number" or size % 1 ~= 0 then
      core.fail("%s: number %d of the list is %s; expected a whole number", name, k, tostring(size))
    end
    list[k] = size
  end
  return list
end
