--- PNG files.
local core = require "perigee.core.ffi"
local picture = require "perigee.io.picture"
local tensor = require "perigee.core.tensor"

local C, check = core.C, core.check
local M = { load = picture.load }

--- Writes a picture, uint8 [H,W,3] or [H,W,1]; the file appears whole or not at all.
---@param path string
---@param image perigee.Tensor
function M.save(path, image)
  if image.device ~= "cpu" then image = image:to "cpu" end
  if not image:is_contiguous() then image = image:contiguous() end
  check(C.pg_png_write(path, tensor.handle(image)))
end

--- The same at a writer's end, without compression, which is fast.
---@param writer perigee.Writer
---@param image perigee.Tensor  contiguous, on the CPU
function M.append(writer, image)
  check(C.pg_png_encode(writer.handle, writer.path, tensor.handle(image), 0))
end

return M
