--- Small files whole, by Lua's own functions: for what is read before the runtime is there (perigee.io.files), and for
--- /proc and /sys, whose files have no size.
local M = {}

local EINTR = 4 -- a signal came: the call is made again

--- A file's text; nil, a message and a number where it can't be read.
---@param path string
---@return string? text, string? message, integer? number
function M.read(path)
  while true do
    local file, text, message, number
    file, message, number = io.open(path, "rb")
    if file then
      text, message, number = file:read "*a"
      file:close()
    end
    if text then return text end
    if number ~= EINTR then
      return nil, message:find(path, 1, true) and message or ("%s: %s"):format(path, message), number
    end
  end
end

return M
