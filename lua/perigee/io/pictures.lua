--- Folders of PNG files with a folder a class.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"

local M = {}

--- The PNG files of FOLDER/CLASS/*.png: their names relative to the folder, sorted; a label each, from 0; the classes'
--- names, sorted.
---@return string[] names, integer[] labels, string[] classes
function M.scan(folder)
  local names, labels, classes = {}, {}, {}
  for _, class in ipairs(files.list(folder)) do
    local path = folder .. "/" .. class
    if files.kind(path) == "directory" then
      local before = #names
      for _, name in ipairs(files.list(path)) do
        if name:lower():match "%.png$" then
          names[#names + 1] = class .. "/" .. name
          labels[#labels + 1] = #classes
        end
      end
      if #names > before then classes[#classes + 1] = class end
    end
  end
  if #names == 0 then core.fail("%s: no PNG files in its folders; expected one folder per class", folder) end
  return names, labels, classes
end

return M
