--- What a file is that is not of the kind expected (runtime/recognise.c), for messages.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"

local LENGTH = 4096 -- bytes looked at

local M = {}

--- "it is a Git LFS pointer, not the file itself; fetch the file with git lfs pull"; nil: not known.
---@param path string
---@return string?
function M.sentence(path)
  local text = files.read(path, 0, math.min(files.size(path), LENGTH))
  local found = core.C.pg_file_recognise(text, #text)
  return found ~= nil and "it is " .. ffi.string(found) or nil
end

return M
