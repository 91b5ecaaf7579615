--- Whose a file is, and who else can change it.
local ffi = require "ffi"
local lfs = require "lfs"
local files = require "perigee.io.files"
local printable = require "perigee.base.printable"

ffi.cdef [[
unsigned geteuid(void);
int chmod(const char *path, unsigned mode);
]]

local PRIVATE = tonumber("700", 8)

local M = {}

--- A line about a file of which something is about to be executed, and which belongs to another user than `user`, or
--- nil.
---@param path string
---@param user? integer  default: the process's own
---@return string?
function M.note(path, user)
  local owner = lfs.attributes(path, "uid")
  if not owner or owner == (user or ffi.C.geteuid()) then return nil end
  return ("note: %s belongs to another user (number %d), and what it holds is executed"):format(printable.text(path),
    owner)
end

--- Writes that line to the terminal, before the file is executed.
function M.tell(path)
  local note = M.note(path)
  if note then io.stderr:write(note, "\n") end
end

--- Makes a folder that nobody else can enter; one that exists stays as it is.
function M.make_private_folder(path)
  if files.exists(path) then return end
  files.make_folder(path)
  ffi.C.chmod(path, PRIVATE)
end

--- Why a file or folder may hold something of other users, or nil; and its permissions.
local function doubt(path, trusted)
  local found = lfs.attributes(path)
  if not found then return nil end
  if not trusted[found.uid] then return ("it belongs to another user (number %d)"):format(found.uid) end
  local may = found.permissions
  if may:sub(5, 5) == "w" or may:sub(8, 8) == "w" then return ("others can write to it (%s)"):format(may) end
  return nil, may, found.mode
end

--- The first path that is in doubt, and why: from `folder` down to `path`, then all below that.
local function find_doubt(folder, path, trusted)
  local why, may, mode = doubt(folder, trusted)
  if why then return folder, why end
  if mode ~= "directory" or may:sub(4) == "------" then return nil end -- what nobody else enters, nobody else changes
  local next_name = path:sub(#folder + 1):match "^/+([^/]+)"
  for _, name in ipairs(next_name and { next_name } or files.list(folder)) do
    local where, reason = find_doubt(folder .. "/" .. name, path, trusted)
    if where then return where, reason end
  end
end

--- An error if anybody but this process's user and root can have changed `path`, or anything below it, which lies in
--- the cache's `folder`. What isn't there is fine.
---@param folder string
---@param path? string  default: the folder alone
---@param trusted? table<integer, boolean>  users; default: the process's own, and root
function M.expect_trusted(folder, path, trusted)
  trusted = trusted or { [0] = true, [ffi.C.geteuid()] = true }
  local where, why
  if path then where, why = find_doubt(folder, path, trusted)
  else where, why = folder, (doubt(folder, trusted)) end
  if not why then return end
  error(("%s: %s, so a teacher from there may be anyone's; if all of it is yours: chmod -R go-w '%s'; else set "
    .. "PERIGEE_CACHE to a folder of your own, or to one that root has filled and only root can write to"):format(
    where, why, folder), 0)
end

return M
