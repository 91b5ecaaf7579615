--- Tables as values: copies and keys in order.
local M = {}

--- A new table with the entries of some tables; of entries with one key, the last table's. An absent table (nil) adds
--- nothing. Their values aren't copied.
---@return table
function M.merged(...)
  local result = {}
  for k = 1, select("#", ...) do
    for key, value in pairs((select(k, ...)) or {}) do result[key] = value end
  end
  return result
end

--- A new table with the entries of one; their values aren't copied.
---@param t table
---@return table
function M.copy(t) return M.merged(t) end

--- Numbers, then texts, then all else by its text.
local function precedes(a, b)
  local kind = type(a)
  if kind == type(b) and (kind == "number" or kind == "string") then return a < b end
  if kind == "number" or type(b) == "number" then return kind == "number" end
  if kind == "string" or type(b) == "string" then return kind == "string" end
  return tostring(a) < tostring(b)
end

--- The keys of a table in order: numbers, then texts, then all else by its text.
---@param t table
---@return any[]
function M.sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, precedes)
  return keys
end

return M
