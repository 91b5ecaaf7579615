--- Environment variables; one that is empty counts as not set.
local M = {}

---@param name string
---@return string?
function M.get(name)
  local value = os.getenv(name)
  return value ~= "" and value or nil
end

--- A user's folder by the XDG base directory specification: the variable's, or BELOW in HOME, or in this folder where
--- there is no HOME.
---@param variable string  "XDG_CACHE_HOME"
---@param below string     ".cache"
---@return string
function M.folder(variable, below) return M.get(variable) or (M.get "HOME" or ".") .. "/" .. below end

return M
