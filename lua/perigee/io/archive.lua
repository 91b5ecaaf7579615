--- An archive of either kind, zip or tar, told by how it begins: its names, `entries`, :member(name) and :read(name).
local files = require "perigee.io.files"
local tar = require "perigee.io.tar"
local zip = require "perigee.io.zip"

local M = {}

--- Whether a file's name ends as that of an archive does.
---@param path string
function M.is_named(path) return path:lower():match "%.zip$" ~= nil or path:lower():match "%.tar$" ~= nil end

---@param path string
---@return perigee.ZipFile|perigee.TarFile
function M.open(path)
  local beginning = files.read(path, 0, math.min(files.size(path), 2))
  if beginning == "PK" or path:lower():match "%.zip$" then return zip.open(path) end
  return tar.open(path)
end

return M
