--- Values as a console shows them.
local program = require "perigee.core.program"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

local WIDTH, ENTRIES, DEPTH = 100, 40, 3
local MOST_SORTED = 2000 -- keys of a table that are put in order; of a larger one the first that come are shown

local function is_name(key) return type(key) == "string" and key:match "^[%a_][%w_]*$" end

local render

--- A table's keys in order, some of them if there are many.
local function keys_of(t)
  local some = {}
  for key in next, t do
    if #some == MOST_SORTED then break end
    some[#some + 1] = key
  end
  if #some < MOST_SORTED then return tables.sorted_keys(t) end
  for k = ENTRIES + 2, #some do some[k] = nil end
  return some
end

local function render_table(t, depth, seen)
  if seen[t] then return "{ ... }" end
  if depth > DEPTH then return next(t) == nil and "{}" or "{ ... }" end
  seen[t] = true
  local parts, length, long = {}, 0, false
  for k, key in ipairs(keys_of(t)) do
    if k > ENTRIES then
      parts[k] = "..."
      break
    end
    local value = render(rawget(t, key), depth + 1, seen)
    parts[k] = (key == k and "" or (is_name(key) and key or "[" .. render(key, depth + 1, seen) .. "]")
      .. " = ") .. value
    length, long = length + #parts[k] + 2, long or value:find("\n", 1, true) ~= nil
  end
  seen[t] = nil
  if #parts == 0 then return "{}" end
  if length <= WIDTH and not long then return "{ " .. table.concat(parts, ", ") .. " }" end
  for k, part in ipairs(parts) do parts[k] = "  " .. part:gsub("\n", "\n  ") end
  return "{\n" .. table.concat(parts, ",\n") .. "\n}"
end

function render(x, depth, seen)
  local kind = type(x)
  if kind == "string" then
    if depth == 1 then return x end
    return #x > 200 and ("%q..."):format(x:sub(1, 200)) or ("%q"):format(x)
  elseif kind == "number" then
    return x % 1 == 0 and math.abs(x) < 2 ^ 53 and ("%d"):format(x) or ("%.10g"):format(x)
  elseif kind == "function" then
    local info = debug.getinfo(x, "S")
    return info.what == "C" and "function (built in)"
      or ("function (%s:%d)"):format(info.short_src:match "[^/]+$", info.linedefined)
  elseif kind == "table" then
    if depth > 1 and (tensor.is_tensor(x) or program.is_value(x)) then
      return ("%s [%s]"):format(x.dtype, table.concat(x.shape, ","))
    end
    local class = debug.getmetatable(x)
    if class and rawget(class, "__tostring") then return tostring(x) end
    return render_table(x, depth, seen)
  end
  return tostring(x)
end

--- One value as text.
function M.value(x) return render(x, 1, {}) end

--- The text of an evaluation's results, `n` values in a list; nothing for none, or for one nil.
function M.values(list, n)
  if n == 0 or (n == 1 and list[1] == nil) then return "" end
  local texts = {}
  for k = 1, n do texts[k] = M.value(list[k]) end
  return table.concat(texts, "\t")
end

return M
