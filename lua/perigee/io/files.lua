--- Files and folders. Every error names the path. A file that is written appears whole or not at all.
local ffi = require "ffi"
local lfs = require "lfs"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check
local M = {}

local size = ffi.new "int64_t[1]"

-- ---- folders ----------------------------------------------------------------------------------------------------

local EINTR, NOT_THERE = 4, { [2] = true, [20] = true } -- ENOENT, ENOTDIR

--- What lfs knows of a path, nil where there is nothing. An error where the system will not say.
local function attributes(path, name)
  while true do
    local found, message, number = lfs.attributes(path, name)
    if found or NOT_THERE[number] then return found end
    if number ~= EINTR then core.fail("%s: cannot be looked at: %s", path, message:match ": (.*)$" or message) end
  end
end

---@return "file"|"directory"|string|nil  # nil: there is nothing
function M.kind(path) return attributes(path, "mode") end

function M.exists(path) return M.kind(path) ~= nil end

--- Size in bytes and time of the last change, in seconds.
function M.stat(path)
  local found = attributes(path) or core.fail("%s: it is not there", path)
  return { bytes = found.size, changed = found.modification, kind = found.mode }
end

--- Names in a folder, sorted, without "." and "..".
---@return string[]
function M.list(folder)
  if M.kind(folder) ~= "directory" then core.fail("%s: folder not found", folder) end
  local names, room = {}, 2 ^ 14
  local buffer
  repeat
    buffer = ffi.new("char[?]", room)
    check(C.pg_folder_list(folder, buffer, room, size))
    local bytes, there = tonumber(size[0]), room
    room = 2 * bytes -- the folder may grow meanwhile
  until bytes <= there
  for name in ffi.string(buffer, size[0]):gmatch "%Z+" do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- Makes a folder and those above it; one that exists is fine.
function M.make_folder(folder)
  if M.kind(folder) == "directory" then return end
  local above = folder:match "^(.+)/[^/]+/*$"
  if above then M.make_folder(above) end
  local made, message = lfs.mkdir(folder)
  if not made and M.kind(folder) ~= "directory" then core.fail("%s: cannot be made: %s", folder, message) end
end

--- Removes a file or an empty folder; what isn't there needs no removing.
function M.remove(path)
  local removed, message = os.remove(path)
  if not removed and lfs.symlinkattributes(path, "mode") then core.fail("%s: cannot be removed: %s", path, message) end
end

--- Removes a folder with all that is in it; links are removed, not followed.
function M.remove_tree(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for _, name in ipairs(M.list(path)) do M.remove_tree(path .. "/" .. name) end
  end
  M.remove(path)
end

function M.rename(from, to)
  local renamed, message, number
  repeat renamed, message, number = os.rename(from, to) until renamed or number ~= EINTR
  if not renamed then core.fail("%s: cannot be renamed to %s: %s", from, to, message) end
end

--- Removes the temporary files that killed writers left in a folder, of all files or of the one called `of`. A file
--- that is being written is locked and stays: a process number would say nothing, in a container it is the same at
--- every start.
---@param folder string
---@param of? string
function M.sweep(folder, of)
  for _, name in ipairs(M.exists(folder) and M.list(folder) or {}) do
    local whole = name:match "^(.*)%.tmp%-%d+%-%d+$"
    if whole and (not of or whole == of) then check(C.pg_writer_sweep(folder .. "/" .. name)) end
  end
end

--- The path's folder ("." if it has none) and its last part.
function M.split(path)
  local folder, name = path:match "^(.*)/([^/]*)$"
  if not folder then return ".", path end
  return folder == "" and "/" or folder, name
end

-- ---- reading ----------------------------------------------------------------------------------------------------

---@return integer
function M.size(path)
  check(C.pg_file_size(path, size))
  return tonumber(size[0])
end

--- Waits until all that was written to a folder's disk is there.
function M.sync(folder) check(C.pg_disk_sync(folder)) end

--- Bytes that a folder's disk has left.
---@return integer
function M.free_space(folder)
  check(C.pg_disk_free(folder, size))
  return tonumber(size[0])
end

--- A file's bytes as a string; `offset` and `count` pick a part.
---@return string
function M.read(path, offset, count)
  offset = offset or 0
  count = count or M.size(path) - offset
  local buffer = ffi.new("char[?]", math.max(count, 1))
  check(C.pg_file_read(path, offset, buffer, count))
  return ffi.string(buffer, count)
end

local sum = ffi.new "uint32_t[1]"

--- Fills a contiguous tensor, on any device, with the bytes at `offset`. With `summed`, the second result is their
--- CRC-32.
function M.read_tensor(path, offset, t, summed)
  check(C.pg_file_read_tensor(path, offset, tensor.handle(t), summed and sum or nil))
  return t, summed and sum[0] or nil
end

--- CRC-32 of a part of a file.
function M.crc32(path, offset, bytes)
  check(C.pg_file_crc32(path, offset, bytes, sum))
  return sum[0]
end

-- ---- writing ----------------------------------------------------------------------------------------------------

---@class perigee.Writer
local Writer = {}
Writer.__index = Writer

local pointer = ffi.new "pg_writer *[1]"

local function open_handle(w)
  if not w.handle then core.fail("%s: this writer has ended", w.path) end
  return w.handle
end

--- Takes the handle away from the collector: the C function called next ends it.
local function ending(w)
  local handle = ffi.gc(open_handle(w), nil)
  w.handle = nil
  return handle
end

--- A writer for a file that appears when it is committed. One that is dropped or aborted leaves no trace.
---@return perigee.Writer
function M.writer(path)
  check(C.pg_writer_open(pointer, path))
  return setmetatable({ handle = ffi.gc(pointer[0], C.pg_writer_abort), path = path }, Writer)
end

--- A writer whose temporary file, PATH.part, is kept when it is suspended or dropped, and continues where it was.
---@return perigee.Writer
function M.resume(path)
  check(C.pg_writer_resume(pointer, path, size))
  return setmetatable({ handle = ffi.gc(pointer[0], C.pg_writer_suspend), path = path }, Writer)
end

--- A writer at the end of a file that is there, or is made; other processes may append too. Ended by suspend().
---@return perigee.Writer
function M.append(path)
  check(C.pg_writer_append(pointer, path))
  return setmetatable({ handle = ffi.gc(pointer[0], C.pg_writer_suspend), path = path }, Writer)
end

--- Appends a string, or `bytes` bytes of a cdata array.
function Writer:write(data, bytes)
  check(C.pg_writer_write(open_handle(self), data, bytes or #data))
  return self
end

--- Appends a tensor's elements in row-major order. With `summed`, returns their bytes' CRC-32.
function Writer:write_tensor(t, summed)
  if not t:is_contiguous() then t = t:contiguous() end
  check(C.pg_writer_write_tensor(open_handle(self), tensor.handle(t), summed and sum or nil))
  return summed and sum[0] or self
end

function Writer:write_at(offset, data) check(C.pg_writer_write_at(open_handle(self), offset, data, #data)) end

function Writer:read_at(offset, bytes)
  local buffer = ffi.new("char[?]", math.max(bytes, 1))
  check(C.pg_writer_read_at(open_handle(self), offset, buffer, bytes))
  return ffi.string(buffer, bytes)
end

function Writer:truncate(bytes) check(C.pg_writer_truncate(open_handle(self), bytes)) end

function Writer:bytes() return tonumber(C.pg_writer_bytes(open_handle(self))) end

--- CRC-32 of a part of what was written.
function Writer:crc32(offset, bytes)
  check(C.pg_writer_crc32(open_handle(self), offset, bytes, sum))
  return sum[0]
end

function Writer:commit() check(C.pg_writer_commit(ending(self))) end

--- As commit, but without waiting for the disk; M.sync then makes what many writers placed outlast a power cut.
function Writer:place() check(C.pg_writer_place(ending(self))) end
function Writer:suspend() check(C.pg_writer_suspend(ending(self))) end
function Writer:abort() if self.handle then C.pg_writer_abort(ending(self)) end end

-- ---- locks ------------------------------------------------------------------------------------------------------

---@class perigee.Lock
local Lock = {}
Lock.__index = Lock

local lock = ffi.new "pg_lock *[1]"

--- Holds a file against other processes until it is freed, or this process ends. Nil where another has it, and that
--- one's number (0: not known).
---@return perigee.Lock?
---@return integer? holder
function M.lock(path)
  check(C.pg_lock_take(lock, path, size))
  if lock[0] == nil then return nil, tonumber(size[0]) end
  return setmetatable({ handle = ffi.gc(lock[0], C.pg_lock_free) }, Lock)
end

function Lock:free()
  if self.handle then C.pg_lock_free(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

-- ---- whole files ------------------------------------------------------------------------------------------------

--- Runs body(writer) and commits; an error in it aborts and is raised again.
function M.with_writer(path, body)
  local w = M.writer(path)
  local fine, message = pcall(body, w)
  if not fine then
    w:abort()
    error(message, 0)
  end
  w:commit()
end

--- Writes a string as a whole file.
function M.write(path, text)
  M.with_writer(path, function(w) w:write(text) end)
end

return M
