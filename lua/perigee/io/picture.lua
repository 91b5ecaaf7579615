--- Pictures in files: PNG, JPEG and WebP, told apart by how they begin, whatever their names; and ADM's centre crop.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check
local M = {}

local pointer = ffi.new "pg_tensor *[1]"

--- The tensor that a function of the runtime made, as one of ours.
local function taken()
  local made = ffi.gc(pointer[0], C.pg_tensor_release)
  local shape = C.pg_tensor_info(made).shape
  local picture = tensor.empty({ tonumber(shape[0]), tonumber(shape[1]), 3 }, "uint8")
  check(C.pg_tensor_copy(tensor.handle(picture), made))
  return picture
end

--- Whether a file's name ends as that of a picture does.
---@param name string
function M.is_named(name)
  local ending = name:lower():match "%.(%w+)$"
  return ending == "png" or ending == "jpg" or ending == "jpeg" or ending == "webp"
end

--- A picture as uint8 [H,W,3]: grey, palette and CMYK expanded, alpha dropped, 16 bits scaled to 8. What a JPEG file
--- says about its orientation is ignored.
---@param path string
---@return perigee.Tensor
function M.load(path)
  check(C.pg_picture_load(pointer, path))
  return taken()
end

--- The same from a file's bytes; `name` is what an error calls it.
---@param name string
---@param bytes string
---@return perigee.Tensor
function M.decode(name, bytes)
  check(C.pg_picture_decode(pointer, name, bytes, #bytes))
  return taken()
end

--- ADM's centre crop, equal to Pillow's in every byte: halved by a box filter while the shorter side is at least twice
--- the crop's, scaled (bicubic) until it is the crop's, cut out at the centre. uint8 [H,W,3] -> [side,side,3].
---@param image perigee.Tensor
---@param side integer
---@return perigee.Tensor
function M.centre_crop(image, side)
  check(C.pg_picture_centre_crop(pointer, tensor.handle(image:is_contiguous() and image or image:contiguous()), side))
  return taken()
end

return M
