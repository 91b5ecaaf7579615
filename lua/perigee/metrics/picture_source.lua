--- Pictures to evaluate, one after the other: an .npz or .npy file, uint8 [N,H,W,3] or [N,H,W,1], or a folder or an
--- archive of picture files. A grey picture has three equal channels. `key` names the pictures: an array's by its
--- content, whatever its file is called.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local ops = require "perigee.core.ops"
local picture = require "perigee.io.picture"
local pictures = require "perigee.io.pictures"
local tensor = require "perigee.core.tensor"

local M = {}

---@class perigee.PictureSource
---@field name string     for messages
---@field key string      what decides the pictures
---@field count integer
---@field height integer
---@field width integer
---@field read fun(self: perigee.PictureSource, first: integer, count: integer): perigee.Tensor  from 1: uint8 [n,H,W,3]

local Source = {}
Source.__index = Source

--- Calls take(images) for the pictures from number `begin` (1) on, in batches.
---@param begin integer
---@param batch integer
---@param take fun(images: perigee.Tensor)
function Source:each(begin, batch, take)
  for first = begin, self.count, batch do
    if core.C.pg_signals_pending() ~= 0 then error("interrupted", 0) end
    tensor.tidy(function() take(self:read(first, math.min(batch, self.count - first + 1))) end)
  end
end

--- Three channels, of one or three.
local function coloured(images)
  if images.shape[4] == 3 then return images end
  local n, h, w = unpack(images.shape)
  return images:expand({ n, h, w, 3 }):contiguous()
end
M.coloured = coloured

local function of_array(path, header, crc)
  local shape = header.shape
  if header.dtype ~= "uint8" or #shape ~= 4 or (shape[4] ~= 3 and shape[4] ~= 1) or shape[1] == 0 then
    core.fail("%s: its array is %s %s; expected pictures, uint8 [N,H,W,3]%s", path, header.dtype,
      core.shape_text(shape), header.dtype == "float32" and " (latents are decoded first)" or "")
  end
  local bytes = shape[2] * shape[3] * shape[4]
  return setmetatable({ name = path, count = shape[1], height = shape[2], width = shape[3],
    key = ("array %s %08x"):format(core.shape_text(shape), crc),
    read = function(_, first, count)
      local images = tensor.empty({ count, shape[2], shape[3], shape[4] }, "uint8")
      return coloured(files.read_tensor(path, header.offset + (first - 1) * bytes, images))
    end }, Source)
end

--- Pictures in files or in an archive, cropped to `side` pixels where that is given; else they have one size.
local function of_files(path, side)
  local set, told = pictures.gather(path), {}
  if set.folder then
    for k, name in ipairs(set.names) do
      local stat = files.stat(path .. "/" .. name)
      told[k] = ("%s %.0f %.0f"):format(name, stat.bytes, stat.changed)
    end
  else
    local stat = files.stat(path)
    told[1] = ("%.0f %.0f"):format(stat.bytes, stat.changed)
  end
  local function load(name)
    local loaded = set.folder and picture.load(path .. "/" .. name)
      or picture.decode(path .. "/" .. name, set.archive:read(name))
    return side and picture.centre_crop(loaded, side) or loaded
  end
  local first, text = load(set.names[1]), table.concat(told, "\n")
  local height, width = first.shape[1], first.shape[2]
  local function checked(name)
    local loaded = load(name)
    if loaded.shape[1] ~= height or loaded.shape[2] ~= width then
      core.fail("%s/%s: it has %dx%d pixels (width x height), %s has %dx%d; expected pictures of one size, or --size",
        path, name, loaded.shape[2], loaded.shape[1], set.names[1], width, height)
    end
    return loaded
  end
  return setmetatable({ name = path, count = #set.names, height = height, width = width,
    key = ("files %d %08x %s %s"):format(#set.names, core.C.pg_crc32(0, text, #text), tostring(side), path),
    read = function(_, begin, count)
      return tensor.tidy(function()
        local parts = {}
        for k = 1, count do parts[k] = checked(set.names[begin + k - 1]) end
        return ops.stack(parts, 1)
      end)
    end }, Source)
end

--- The same pictures, the first `count` of them.
---@param source perigee.PictureSource
---@param count integer
function M.first(source, count)
  if count > source.count then
    core.fail("%s: it has %d pictures; --count asks for %d", source.name, source.count, count)
  end
  local fewer = { count = count, key = ("%s, the first %d"):format(source.key, count) }
  return setmetatable(fewer, { __index = source })
end

---@param path string
---@param options? { size?: integer }  ADM's centre crop of picture files to this side
---@return perigee.PictureSource
function M.open(path, options)
  local side = options and options.size
  if not files.exists(path) then core.fail("%s: no such file or folder", path) end
  local array = path:match "%.np([yz])$"
  if array and side then core.fail("%s: --size crops files of pictures, not arrays", path) end
  if array == "y" then return of_array(path, npy.header(path), files.crc32(path, 0, files.size(path))) end
  if array == "z" then return of_array(path, npz.header(path, "arr_0")) end
  return of_files(path, side)
end

return M
