--- Tables of text: names on the left, a column a run; long cells continue below, too many columns in a further table.
local M = {}

local CELL = 34 -- the widest cell, in characters

local function length(text) return select(2, text:gsub("[^\128-\191]", "")) end

--- A cell's lines, cut at spaces; a word that is too long stands alone.
local function lines_of(text)
  local lines, line = {}, ""
  for word in text:gmatch "%S+" do
    if line ~= "" and length(line) + 1 + length(word) > CELL then
      lines[#lines + 1], line = line, word
    else line = line == "" and word or line .. " " .. word end
  end
  lines[#lines + 1] = line
  return lines
end

local function column(heads, rows, k)
  local width, cells = length(heads[k]), {}
  for r, row in ipairs(rows) do
    cells[r] = lines_of(row[k])
    for _, line in ipairs(cells[r]) do width = math.max(width, length(line)) end
  end
  return { head = heads[k], width = width, cells = cells }
end

local function pad(text, width) return text .. (" "):rep(width - length(text)) end

local function block(out, names, rows, columns)
  local line = { pad("", names) }
  for k, c in ipairs(columns) do line[k + 1] = pad(c.head, c.width) end
  out[#out + 1] = table.concat(line, "  ")
  for r, row in ipairs(rows) do
    local height = 1
    for _, c in ipairs(columns) do height = math.max(height, #c.cells[r]) end
    for h = 1, height do
      line = { pad(h == 1 and row.name or "", names) }
      for k, c in ipairs(columns) do line[k + 1] = pad(c.cells[r][h] or "", c.width) end
      out[#out + 1] = table.concat(line, "  ")
    end
  end
end

--- Lines of a table. Rows are { name =, one text a head }.
---@param heads string[]
---@param rows table[]
---@param width integer   characters a line may have
---@return string[]
function M.lines(heads, rows, width)
  local out, names = {}, 0
  for _, row in ipairs(rows) do names = math.max(names, length(row.name)) end
  local first = 1
  while first <= #heads do
    local columns, used, k = {}, names, first
    repeat
      local c = column(heads, rows, k)
      if #columns > 0 and used + 2 + c.width > width then break end
      columns[#columns + 1], used, k = c, used + 2 + c.width, k + 1
    until k > #heads
    if first > 1 then out[#out + 1] = "" end
    block(out, names, rows, columns)
    first = k
  end
  for k, line in ipairs(out) do out[k] = line:gsub("%s+$", "") end
  return out
end

return M
