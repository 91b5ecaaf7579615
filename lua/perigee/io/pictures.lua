--- Folders of PNG files with a folder a class.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"

local M = {}

--- The PNG files of FOLDER/CLASS/*.png: their names relative to the folder, sorted; a label each, from 0; the classes'
--- names, sorted; what else lies there and was left out, folders with a "/" behind their names.
---@return string[] names, integer[] labels, string[] classes, string[] left_out
function M.scan(folder)
  local names, labels, classes, left_out = {}, {}, {}, {}
  local function leave_out(name)
    left_out[#left_out + 1] = files.kind(folder .. "/" .. name) == "directory" and name .. "/" or name
  end
  for _, class in ipairs(files.list(folder)) do
    local path = folder .. "/" .. class
    if files.kind(path) ~= "directory" then leave_out(class)
    else
      local before = #names
      for _, name in ipairs(files.list(path)) do
        if name:lower():match "%.png$" then
          names[#names + 1] = class .. "/" .. name
          labels[#labels + 1] = #classes
        else leave_out(class .. "/" .. name) end
      end
      if #names > before then classes[#classes + 1] = class
      elseif #files.list(path) == 0 then leave_out(class) end
    end
  end
  if #names == 0 then
    core.fail("%s: no PNG files in its folders; expected one folder per class%s", folder,
      left_out[1] and ("; there is %s"):format(table.concat(left_out, ", ", 1, math.min(#left_out, 3))) or "")
  end
  return names, labels, classes, left_out
end

return M
