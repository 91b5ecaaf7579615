--- A model as a tree of text, which is how it prints: every part with its name, kind and number of parameters, every
--- tensor with its shape. Parts of a list that are alike are shown once.
local layout = require "perigee.core.layout"
local tables = require "perigee.base.tables"
local tensor = require "perigee.core.tensor"

local M = {}

--- 1234567 -> "1,234,567"
local function grouped(n)
  local text = ("%d"):format(n)
  local head = #text % 3
  return (text:sub(1, head) .. text:sub(head + 1):gsub("%d%d%d", ",%0")):gsub("^,", "")
end

local function tensor_text(t, seen)
  local text, role = ("[%s]"):format(table.concat(t.shape, ",")), rawget(t, "role")
  if seen[t] then return ("%s, the same as %s"):format(text, seen[t]), 0 end
  if role == "parameter" then
    local count = layout.numel(t.shape)
    return ("%s %s%s"):format(text, grouped(count), rawget(t, "frozen") and ", frozen" or ""), count
  end
  return text .. " fixed", 0
end

local render

--- The entries of a part: a list of { name, lines, count }, the first line without the name.
local function parts_of(node, path, seen)
  local parts = {}
  for _, key in ipairs(tables.sorted_keys(node)) do
    local value = (type(key) == "string" or type(key) == "number") and node[key]
    local name = path .. tostring(key)
    if tensor.is_tensor(value) and rawget(value, "role") then
      local text, count = tensor_text(value, seen)
      seen[value] = seen[value] or name
      parts[#parts + 1] = { name = tostring(key), lines = { text }, count = count }
    elseif type(value) == "table" and seen[value] then
      parts[#parts + 1] = { name = tostring(key), lines = { "the same as " .. seen[value] }, count = 0 }
    elseif type(value) == "table" and not tensor.is_tensor(value) then
      local lines, count = render(value, name .. ".", seen)
      if lines then parts[#parts + 1] = { name = tostring(key), lines = lines, count = count, of_list = #node > 0 } end
    end
  end
  return parts
end

--- Neighbours of a list that are alike become one: "1 to 12".
local function folded(parts)
  local list = {}
  for _, part in ipairs(parts) do
    local before = list[#list]
    if before and part.of_list and table.concat(before.lines, "\n") == table.concat(part.lines, "\n") then
      before.last, before.times = part.name, (before.times or 1) + 1
    else list[#list + 1] = part end
  end
  return list
end

--- A part's lines and its number of parameters; nil where there is no tensor in it.
function render(node, path, seen)
  seen[node] = path == "" and "the whole" or path:sub(1, -2)
  local class = getmetatable(node)
  if class and not rawget(class, "is_module") then return nil end
  local parts, total, lines = parts_of(node, path, seen), 0, {}
  if #parts == 0 and not class then return nil end
  for _, part in ipairs(parts) do total = total + part.count end
  lines[1] = ("%s%s"):format(class and class.class_name .. ", " or "", grouped(total))
  for _, part in ipairs(folded(parts)) do
    local name = part.last and ("%s to %s, each"):format(part.name, part.last) or part.name
    for k, line in ipairs(part.lines) do
      lines[#lines + 1] = k == 1 and ("  %s: %s"):format(name, line) or "  " .. line
    end
  end
  return lines, total
end

--- The tree of a module.
---@param module perigee.Module
---@return string
function M.text(module)
  local lines = render(module, "", {})
  lines[1] = lines[1] .. " parameters"
  return table.concat(lines, "\n")
end

return M
