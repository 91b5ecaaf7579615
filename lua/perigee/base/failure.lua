--- The meaning of an error message: a user's mistake, told in one line, or a defect of Perigee's, told with a
--- traceback.
local M = {}

--- A user's mistake has no position (error(message, 0)) or one outside of the library: in a recipe or a script.
---@param message any
---@return boolean
function M.is_users(message)
  if type(message) ~= "string" then return false end
  local place = message:match "^([^\n]-%.lua):%d+: " or message:match "^(%[[^\n]-%]):%d+: "
  return not place or not place:find("lua/perigee/", 1, true)
end

local COMPARISON = "; if one of them is a tensor: ops.less(x, y) compares by element, x:item() is the number in it"

--- Lua compares a tensor with a number before the tensor is asked; its error gets what to write.
---@param message any
function M.explained(message)
  local mixed = type(message) == "string" and (message:find "attempt to compare table with number$"
    or message:find "attempt to compare number with table$")
  return mixed and message .. COMPARISON or message
end

--- A message handler for xpcall: the message as it is, or with the stack. PERIGEE_TRACEBACK=1: always the stack.
---@param message any
---@return any
function M.handler(message)
  message = M.explained(message)
  if M.is_users(message) and not os.getenv "PERIGEE_TRACEBACK" then return message end
  if type(message) == "table" or (type(message) == "string" and message:find("\nstack traceback:", 1, true)) then
    return message
  end
  return debug.traceback(tostring(message), 2)
end

--- The text to print.
---@param message any
---@return string
function M.text(message)
  return "perigee: " .. (M.is_users(message) and "" or "internal error: ") .. tostring(message)
end

return M
