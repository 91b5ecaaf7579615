--- Pictures to evaluate, one after the other: an .npz or .npy file, uint8 [N,H,W,3] or [N,H,W,1], or a folder of PNGs.
--- A grey picture has three equal channels. `key` names the pictures by their content, whatever the file is called.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local npy = require "perigee.io.npy"
local npz = require "perigee.io.npz"
local ops = require "perigee.core.ops"
local pictures = require "perigee.io.pictures"
local png = require "perigee.io.png"
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

--- The PNG files of a folder: those in it, or else those of its folders, a class each.
local function list_of(folder)
  local names = {}
  for _, name in ipairs(files.list(folder)) do
    if name:lower():match "%.png$" then names[#names + 1] = name end
  end
  return names[1] and names or (pictures.scan(folder))
end

local function of_folder(folder)
  local names, told = list_of(folder), {}
  for k, name in ipairs(names) do
    local stat = files.stat(folder .. "/" .. name)
    told[k] = ("%s %.0f %.0f"):format(name, stat.bytes, stat.changed)
  end
  local text = table.concat(told, "\n")
  local first = png.load(folder .. "/" .. names[1])
  local height, width = first.shape[1], first.shape[2]
  local function load(name)
    local picture = png.load(folder .. "/" .. name)
    if picture.shape[1] ~= height or picture.shape[2] ~= width then
      core.fail("%s/%s: it has %dx%d pixels (width x height), %s has %dx%d; expected pictures of one size", folder, name,
        picture.shape[2], picture.shape[1], names[1], width, height)
    end
    return picture
  end
  return setmetatable({ name = folder, count = #names, height = height, width = width,
    key = ("folder %d %08x %s"):format(#names, core.C.pg_crc32(0, text, #text), folder),
    read = function(_, begin, count)
      return tensor.tidy(function()
        local parts = {}
        for k = 1, count do parts[k] = load(names[begin + k - 1]) end
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

--- Pictures that are in memory already, uint8 [N,H,W,3].
---@param images perigee.Tensor
---@param name string
---@param key string
function M.of(images, name, key)
  return setmetatable({ name = name, key = key, count = images.shape[1], height = images.shape[2],
    width = images.shape[3],
    read = function(_, first, count) return coloured(images:narrow(1, first, count):contiguous()) end }, Source)
end

---@param path string
---@return perigee.PictureSource
function M.open(path)
  local kind = files.kind(path)
  if kind == "directory" then return of_folder(path) end
  if not kind then core.fail("%s: no such file or folder", path) end
  if path:match "%.npy$" then return of_array(path, npy.header(path), files.crc32(path, 0, files.size(path))) end
  if path:match "%.npz$" then return of_array(path, npz.header(path, "arr_0")) end
  core.fail("%s: expected pictures: an .npz or .npy file, or a folder of PNGs", path)
end

return M
