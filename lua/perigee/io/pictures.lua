--- Folders and archives of pictures, and their labels.
local archives = require "perigee.io.archive"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local members = require "perigee.io.members"
local picture = require "perigee.io.picture"
local tables = require "perigee.base.tables"

local M = {}

--- The pictures of FOLDER/CLASS/: their names relative to the folder, sorted; a label each, from 0; the classes'
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
        if picture.is_named(name) then
          names[#names + 1] = class .. "/" .. name
          labels[#labels + 1] = #classes
        else leave_out(class .. "/" .. name) end
      end
      if #names > before then classes[#classes + 1] = class
      elseif #files.list(path) == 0 then leave_out(class) end
    end
  end
  if #names == 0 then
    core.fail("%s: no pictures (.png, .jpg, .webp) in its folders; expected one folder per class%s", folder,
      left_out[1] and ("; there is %s"):format(table.concat(left_out, ", ", 1, math.min(#left_out, 3))) or "")
  end
  return names, labels, classes, left_out
end

-- ---- any folder or archive --------------------------------------------------------------------------------------

--- All files below a folder, relative to it, in the order of their whole names.
local function walk(folder, inside, found)
  for _, name in ipairs(files.list(inside == "" and folder or folder .. "/" .. inside)) do
    local path = inside == "" and name or inside .. "/" .. name
    if files.kind(folder .. "/" .. path) == "directory" then walk(folder, path, found) else found[#found + 1] = path end
  end
  return found
end

--- The folders that all names share, "a/b/" or "".
local function shared_folders(names)
  local shared = names[1]:match "^(.*/)" or ""
  for _, name in ipairs(names) do
    while name:sub(1, #shared) ~= shared do shared = shared:match "^(.*/)[^/]+/$" or "" end
  end
  return shared
end

--- The label of each name in dataset.json, edm2's: {"labels": [["00000/img00000000.png", 3], ...]}. Nil where that says
--- null: there are none.
---@param what string   what to call it in an error
---@param text string
---@param names string[]
---@param prefix string  folders before the names that dataset.json has
---@return integer[]?
function M.listed_labels(what, text, names, prefix)
  local listed = json.decode(text, what).labels
  if listed == nil or listed == json.null then return nil end
  if type(listed) ~= "table" then core.fail("%s: it has no list 'labels'", what) end
  local by_name, labels = {}, {}
  for _, pair in ipairs(listed) do by_name[tostring(pair[1]):gsub("\\", "/")] = pair[2] end
  for k, name in ipairs(names) do
    local own = name:sub(#prefix + 1)
    labels[k] = by_name[own]
    if type(labels[k]) ~= "number" then core.fail("%s: it has no label for %s", what, own) end
  end
  return labels
end

--- Labels by each name's first folder after `prefix`; nil where fewer than two are there.
local function folder_labels(names, prefix)
  local number, classes, labels = {}, {}, {}
  for k, name in ipairs(names) do
    local class = name:sub(#prefix + 1):match "^([^/]+)/"
    if not class then return nil end
    labels[k] = class
    if not number[class] then number[class], classes[#classes + 1] = 0, class end
  end
  table.sort(classes)
  for k, class in ipairs(classes) do number[class] = k - 1 end
  for k, class in ipairs(labels) do labels[k] = number[class] end
  if #classes > 1 then return labels, classes end
end

---@class perigee.Pictures
---@field source string
---@field folder? string         where they are files,
---@field archive? perigee.ZipFile|perigee.TarFile  or members
---@field names string[]         in the order of their numbers
---@field labels? integer[]
---@field classes? string[]      where folders are the classes
---@field left_out string[]

--- The pictures of a folder, with all folders in it, or of a zip or tar archive, in the order of their names; hidden
--- files are left out. Their labels are those of dataset.json, or else the first folder's among the sorted ones
--- (folders that all share do not count).
---@param source string
---@return perigee.Pictures
function M.gather(source)
  local kind = files.kind(source)
  if not kind then core.fail("%s: there is no such folder or archive", source) end
  local self = { source = source, names = {}, left_out = {} }
  local all
  if kind == "directory" then self.folder, all = source, walk(source, "", {})
  else
    self.archive = archives.open(source)
    all = tables.copy(self.archive.names)
  end
  table.sort(all)
  local listing
  for _, name in ipairs(all) do
    local hidden = name:match "([^/]*)$":sub(1, 1) == "." -- as macOS puts next to each file
    if picture.is_named(name) and not hidden then self.names[#self.names + 1] = name
    elseif name:match "([^/]+)$" == "dataset.json" then listing = listing or name
    elseif name:sub(-1) ~= "/" then self.left_out[#self.left_out + 1] = name end
  end
  if #self.names == 0 then core.fail("%s: no pictures (.png, .jpg, .webp) in it", source) end
  if listing then
    local text = self.archive and self.archive:read(listing) or files.read(source .. "/" .. listing)
    self.labels = M.listed_labels(source .. "/" .. listing, text, self.names, listing:match "^(.*/)" or "")
  else self.labels, self.classes = folder_labels(self.names, shared_folders(self.names)) end
  return self
end

--- Where a loader reads them (perigee.Source).
---@param set perigee.Pictures
---@return perigee.Source
function M.source(set)
  if set.folder then return { folder = set.folder, names = set.names } end
  local places = members.array(#set.names, function(k) return set.archive:member(set.names[k]) end)
  return { archives = { set.source }, names = set.names, places = places }
end

return M
