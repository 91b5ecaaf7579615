--- The paths of the Lua files in a folder and the folders below it.
local files = require "perigee.io.files"

---@param folder string
---@return string[]
return function(folder)
  local found = {}
  local function walk(path)
    for _, entry in ipairs(files.list(path)) do
      local child = path .. "/" .. entry
      if files.kind(child) == "directory" then walk(child)
      elseif entry:match "%.lua$" then found[#found + 1] = child end
    end
  end
  walk(folder)
  return found
end
