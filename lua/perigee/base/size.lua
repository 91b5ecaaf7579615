--- Sizes in memory and on disk, as texts.
local M = {}

--- "9.6 KiB", "14.2 MiB", "2.50 GiB".
---@param bytes number
---@return string
function M.text(bytes)
  if bytes < 2 ^ 20 then return ("%.1f KiB"):format(bytes / 2 ^ 10) end
  if bytes < 2 ^ 30 then return ("%.1f MiB"):format(bytes / 2 ^ 20) end
  return ("%.2f GiB"):format(bytes / 2 ^ 30)
end

return M
