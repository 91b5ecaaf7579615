--- How tensors print: a head that says dtype, shape and device, then numbers in aligned columns. Of a large tensor the
--- first rows, and in the head its least and largest number and its mean.
local core = require "perigee.core.ffi"

local M = {}

local options = { digits = 5, rows = 8, columns = 8 }

--- Sets how tensors print and returns the settings of before; an option left out stays. digits: significant digits of
--- real numbers. rows, columns: the most that is shown; math.huge: all.
---@param given? { digits?: integer, rows?: integer, columns?: integer }
---@return { digits: integer, rows: integer, columns: integer }
function M.options(given)
  local before = { digits = options.digits, rows = options.rows, columns = options.columns }
  for key, value in pairs(given or {}) do
    if not options[key] then
      core.fail("print_options: unknown option '%s'; expected digits, rows or columns", tostring(key))
    end
    if type(value) ~= "number" or value < 1 or (value % 1 ~= 0 and value < math.huge) then
      core.fail("print_options: %s is %s; expected a whole number of at least 1, or math.huge", key, tostring(value))
    end
    options[key] = key == "digits" and math.min(value, 17) or value
  end
  return before
end

local function real_text(x)
  if x ~= x then return "nan" end
  return ("%." .. options.digits .. "g"):format(x)
end

--- The numbers' texts as nested lists, at most options.rows rows of them, and the width of the widest.
local function texts(shape, text_at)
  local left, width, whole = options.rows, 0, true
  local function build(d, first, count)
    if d > #shape then
      local text = text_at(first)
      width = math.max(width, #text)
      return text
    end
    local list, size = {}, shape[d]
    for k = 1, size do
      if (d == #shape and k > options.columns) or (d < #shape and left <= 0) then
        list[k], whole = "...", false
        break
      end
      list[k] = build(d + 1, first + (k - 1) * count / size, count / size)
    end
    if d == #shape then left = left - 1 end
    return list
  end
  local count = 1
  for _, size in ipairs(shape) do count = count * size end
  return build(1, 0, count), width, whole
end

local function join(list, depth, dims, width)
  if type(list) == "string" then return list == "..." and list or (" "):rep(width - #list) .. list end
  local parts = {}
  for k, item in ipairs(list) do parts[k] = join(item, depth + 1, dims, width) end
  return "[" .. table.concat(parts, depth == dims and ", " or ",\n" .. (" "):rep(depth)) .. "]"
end

--- ", -2.1 to 3.4, mean 0.02", with the count of NaN where there are any.
local function summary(shape, number_at, text)
  local count, nans, sum, least, most = 1, 0, 0, math.huge, -math.huge
  for _, size in ipairs(shape) do count = count * size end
  for k = 0, count - 1 do
    local x = number_at(k)
    if x ~= x then nans = nans + 1
    else
      sum, least, most = sum + x, math.min(least, x), math.max(most, x)
    end
  end
  if nans == count then return ", all nan" end
  return (", %s to %s, mean %s%s"):format(text(least), text(most), real_text(sum / (count - nans)),
    nans > 0 and (", %d nan"):format(nans) or "")
end

--- The text of a tensor: its head line, and its elements, which lie row by row in `array`; `number_at(k)` is the k-th
--- (from 0) as a number.
---@param real boolean  the dtype is a real one
function M.text(head, shape, array, number_at, real)
  local function text_at(k)
    return real and real_text(number_at(k)) or (tostring(array[k]):gsub("U?LL$", ""))
  end
  local list, width, whole = texts(shape, text_at)
  if not whole then
    head = head .. summary(shape, number_at, real and real_text or function(x) return ("%.0f"):format(x) end)
  end
  return head .. "\n" .. join(list, 1, #shape, width)
end

return M
