--- Little-endian whole numbers in texts.
local M = {}

--- A number from 0 as so many bytes.
---@param value number
---@param bytes integer
---@return string
function M.little(value, bytes)
  local digits = {}
  for k = 1, bytes do
    digits[k] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(digits)
end

--- The number in so many bytes of a text from an offset, which counts from 0.
---@param text string
---@param offset integer
---@param bytes integer
---@return number
function M.number(text, offset, bytes)
  local value = 0
  for k = offset + bytes, offset + 1, -1 do value = value * 256 + text:byte(k) end
  return value
end

return M
