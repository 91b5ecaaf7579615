--- IDX files, as MNIST's and its successors': big-endian sizes, then bytes. Plain or packed by gzip. The header is not
--- trusted.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local files = require "perigee.io.files"
local layout = require "perigee.core.layout"
local members = require "perigee.io.members"
local number = require("perigee.base.bytes").number
local recognise = require "perigee.io.recognise"
local tensor = require "perigee.core.tensor"

local M = {}

local BYTES = 8 -- the code of unsigned bytes

local function refuse(path, format, ...)
  core.fail("%s: not an IDX file that can be read: %s", path, format:format(...))
end

--- Where a gzip file's deflated bytes begin (RFC 1952).
local function gzip_begins(path, text)
  local flags = text:byte(4)
  if text:byte(3) ~= 8 or flags >= 32 then refuse(path, "it is compressed by an unknown method") end
  local at = 10
  if flags % 8 >= 4 then at = at + 2 + number(text, at, 2) end -- an extra field
  for bit = 8, 16, 8 do -- a name, a comment
    if flags % (2 * bit) >= bit then at = (text:find("\0", at + 1, true) or #text) end
  end
  if flags % 4 >= 2 then at = at + 2 end -- the header's sum
  return at
end

--- A file's bytes, unpacked.
local function content(path)
  local size = files.size(path)
  local beginning = files.read(path, 0, math.min(size, 4096))
  if beginning:sub(1, 2) ~= "\31\139" then return files.read(path) end
  if size < 18 then refuse(path, "it has %d bytes", size) end
  local begins = gzip_begins(path, beginning)
  local ending = files.read(path, size - 8, 8)
  if begins > size - 8 then refuse(path, "its gzip header has no end") end
  return members.read(path, "gzip", { offset = begins, packed = size - 8 - begins, bytes = number(ending, 4, 4),
    crc = number(ending, 0, 4), summed = 1, deflated = 1 })
end

--- A file's array, uint8.
---@param path string
---@param place? { device?: string, purpose?: string }
---@return perigee.Tensor
function M.load(path, place)
  local text = content(path)
  if #text < 4 or text:sub(1, 2) ~= "\0\0" then
    refuse(path, "%s", recognise.sentence(path) or "it does not begin with two zeros")
  end
  local kind, dimensions = text:byte(3, 4)
  if kind ~= BYTES then refuse(path, "its elements are of kind 0x%02x; expected unsigned bytes, 0x08", kind) end
  local begins, shape = 4 + 4 * dimensions, {}
  if dimensions < 1 or dimensions > 4 or #text < begins then refuse(path, "%d dimensions", dimensions) end
  for d = 1, dimensions do shape[d] = number(text:sub(4 * d + 1, 4 * d + 4):reverse(), 0, 4) end
  local bytes = layout.numel(shape)
  if bytes ~= #text - begins then
    refuse(path, "its shape %s needs %.0f bytes, it has %d", core.shape_text(shape), bytes, #text - begins)
  end
  local t = tensor.empty(shape, "uint8", place)
  ffi.copy(t:pointer(), ffi.cast("const uint8_t *", text) + begins, bytes)
  return t
end

return M
