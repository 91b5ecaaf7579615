--- A folder of its own for each test:
---   local in_folder = dofile(home .. "/tests/lua/folder.lua")(before_each, after_each)
local files = require "perigee.io.files"
local lfs = require "lfs"

--- in_folder(name) is the path of a file in it, in_folder() of the folder itself.
return function(before_each, after_each)
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    lfs.mkdir(folder)
  end)
  after_each(function() files.remove_tree(folder) end)
  return function(name) return name and folder .. "/" .. name or folder end
end
