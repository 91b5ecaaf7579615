--- Text from outside (logs, consoles, files) on a terminal: what would steer the terminal is written as \xNN.
local M = {}

local function escaped(bytes)
  return (bytes:gsub(".", function(c) return ("\\x%02X"):format(c:byte()) end))
end

--- Control characters but newline and tab, of eight bits (U+0080 to U+009F) too, as \xNN.
---@param text string
---@return string
function M.text(text)
  return (text:gsub("[%z\1-\8\11-\31\127]", escaped):gsub("\194[\128-\159]", escaped))
end

--- Prints a line with text from outside.
---@param text string
function M.print(text) print(M.text(text)) end

--- Is a text UTF-8?
---@param text string
---@return boolean
function M.is_utf8(text)
  local k = 1
  while k <= #text do
    local first = text:byte(k)
    local more = first < 0x80 and 0 or first >= 0xc2 and first < 0xe0 and 1 or first >= 0xe0 and first < 0xf0 and 2
      or first >= 0xf0 and first < 0xf5 and 3
    if not more then return false end
    for j = 1, more do
      local byte = text:byte(k + j)
      if not byte or byte < 0x80 or byte > 0xbf then return false end
    end
    local second = text:byte(k + 1)
    if (first == 0xe0 and second < 0xa0) or (first == 0xed and second > 0x9f) or (first == 0xf0 and second < 0x90)
      or (first == 0xf4 and second > 0x8f) then return false end
    k = k + more + 1
  end
  return true
end

return M
