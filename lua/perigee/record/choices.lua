--- Choices among equal algorithms (runtime/choices.c): timed once for a GPU, a version and a shape, kept on disk for
--- the next run, and in every checkpoint, so that a run continues with the algorithms it began with.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local json = require "perigee.io.json"

local C = core.C
local M = {}

--- All that were made, by key; nil where there are none.
function M.all()
  local n, list = C.pg_choice_count(), {}
  for k = 0, n - 1 do list[ffi.string(C.pg_choice_key(k))] = ffi.string(C.pg_choice_value(k)) end
  return n > 0 and list or nil
end

--- Takes over choices, a checkpoint's for one; they win over those that are there.
function M.take(list)
  for key, value in pairs(list or {}) do core.check(C.pg_choice_keep(key, value)) end
end

--- Reads what earlier runs chose on this machine. A file that cannot be read is as good as none: the choices are made
--- again.
function M.recall(path)
  if not files.exists(path) then return end
  local fine, list = pcall(json.read, path)
  if fine and type(list) == "table" then pcall(M.take, list) end
end

--- Adds this run's choices to the file. Where it cannot be written (a cache that root shares), they are made again.
function M.save(path)
  local list = M.all()
  if not list then return end
  local fine, known = pcall(json.read, path)
  local all, new = fine and type(known) == "table" and known or {}, false
  for key, value in pairs(list) do
    if not all[key] then all[key], new = value, true end -- a checkpoint's own choices stay its own
  end
  if not new then return end
  pcall(function()
    files.make_folder(path:match "^(.*)/[^/]+$")
    files.write(path, json.encode(all) .. "\n")
  end)
end

return M
