--- PNG files.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check
local M = {}

local pointer = ffi.new "pg_tensor *[1]"

--- A picture as uint8 [H,W,3]: grey and palette expanded, alpha dropped, 16 bits scaled to 8.
---@param path string
---@return perigee.Tensor
function M.load(path)
  check(C.pg_png_read(pointer, path))
  local read = ffi.gc(pointer[0], C.pg_tensor_release)
  local info = C.pg_tensor_info(read)
  local picture = tensor.empty({ tonumber(info.shape[0]), tonumber(info.shape[1]), 3 }, "uint8")
  check(C.pg_tensor_copy(tensor.handle(picture), read))
  return picture
end

--- Writes a picture, uint8 [H,W,3] or [H,W,1]; the file appears whole or not at all.
---@param path string
---@param picture perigee.Tensor
function M.save(path, picture)
  if picture.device ~= "cpu" then picture = picture:to "cpu" end
  if not picture:is_contiguous() then picture = picture:contiguous() end
  check(C.pg_png_write(path, tensor.handle(picture)))
end

return M
